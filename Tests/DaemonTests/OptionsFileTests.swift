import ArgumentParser
import Foundation
import SystemPackage
import TestSupport
import Testing

@testable import qmp_varlinkd

@Suite struct OptionsFileTests {
  @Test("a line is an option, and what is behind a blank or '=' is its value as it is")
  func lines() throws {
    let file = try OptionsFile(
      parsing: """
        # a comment
        --memory=2G

          --image /srv/my disk.qcow2\t
        --append=console=ttyS0 "quiet" # no comment
        --ephemeral\r
        --set-credential\tname:a 'b'
        -i /i
        --cpus
        --
        -device
        virtio-rng-pci,id=x y
          # a comment
        --
        -S
        """, of: "f")
    #expect(
      file.options == [
        "--memory=2G", "--image=/srv/my disk.qcow2", #"--append=console=ttyS0 "quiet" # no comment"#, "--ephemeral",
        "--set-credential=name:a 'b'", "-i", "/i", "--cpus",
      ])
    #expect(file.qemuArguments == ["-device", "virtio-rng-pci,id=x y", "--", "-S"])
  }

  @Test(
    "what is no option is refused, with its line",
    arguments: [
      ("\n\nmemory 2G", "f:3: 'memory 2G' is no option: they begin with dashes, as on the command line"),
      ("[Machine]", "f:1: '[Machine]' is no option: they begin with dashes, as on the command line"),
      ("--cpus 2\n--config /other", "f:2: --config cannot be in a file"), ("--config=/x", "f:1: --config cannot be in a file"),
      ("--append=a\0b", "f:1: a line cannot have a NUL byte"), ("-i=/x", "f:1: '-i=/x': behind a short option there is a blank"),
      ("-i --config=/x", "f:1: '-i --config=/x': no value of a short option begins with a dash"),
    ])
  func refused(text: String, why: String) {
    #expect {
      _ = try OptionsFile(parsing: text, of: "f")
    } throws: {
      "\($0)" == why
    }
  }

  @Test("the file's options stand where it is named, its arguments for QEMU in front of the others")
  func expansion() async throws {
    try await withTemporaryDirectory { folder in
      let file = folder.appending("web.conf").string
      try Data("--cpus 2\n--\n-S\n".utf8).write(to: URL(filePath: file))
      for spelling in [["--config", file], ["--config=\(file)"]] {
        let (words, read) = try OptionsFile.expand(["run", "--machine=web"] + spelling + ["--cpus=4", "--", "-device", "x"])
        #expect(words == ["run", "--machine=web", "--cpus=2", "--cpus=4", "--", "-S", "-device", "x"] && read == file)
      }
      #expect(try OptionsFile.expand(["run", "--config", file]).words == ["run", "--cpus=2", "--", "-S"])
      // Behind -- it is a word of QEMU's.
      for plain in [["run", "--", "--config", file], ["run", "--config"], []] { #expect(try OptionsFile.expand(plain).words == plain) }
      let command = try RunCommand.parse(Array(try OptionsFile.expand(["--machine=web", "--config=\(file)", "--cpus=4"]).words))
      #expect(command.cpus == 4 && command.qemuArguments == ["-S"] && command.service.config == nil)
    }
  }

  @Test("a file that cannot be read, or is none of ours, is an error that names it")
  func unreadable() async throws {
    try await withTemporaryDirectory { folder in
      let large = folder.appending("large").string
      try Data(repeating: UInt8(ascii: "#"), count: 70_000).write(to: URL(filePath: large))
      let binary = folder.appending("binary").string
      try Data([0x2D, 0xFF, 0xFE]).write(to: URL(filePath: binary))
      for (file, why) in [
        ("/nowhere/web.conf", "No such file or directory"), (large, "more than 64 KiB"), (binary, "is not UTF-8"),
        ("\(folder)", "directory"),
      ] {
        #expect {
          _ = try OptionsFile.expand(["run", "--config", file])
        } throws: {
          "\($0)".contains(file) && "\($0)".contains(why)
        }
      }
      #expect {
        _ = try OptionsFile.expand(["run", "--config", large, "--config", binary])
      } throws: {
        "\($0)" == "--config can be given once."
      }
    }
  }
}
