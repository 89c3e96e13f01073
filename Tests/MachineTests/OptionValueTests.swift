import SystemPackage
import SystemdEvent
import Testing

@testable import Machine

@Suite("the values of options") struct OptionValueTests {
  /// What parsing gives, or the complaint.
  private func result<Value>(_ body: () throws -> Value, _ describe: (Value) -> String) -> String {
    do { return describe(try body()) } catch { return "error: \(error)" }
  }

  @Test(
    "--extra-drive",
    arguments: [
      ("/a", "raw - /a"), ("qcow2:/a", "qcow2 - /a"), ("nvme:/a", "raw nvme /a"), ("raw:scsi-cd:a", "raw scsi-cd a"),
      ("qcow2:virtio-scsi:/a:b", "qcow2 virtio-scsi /a:b"), ("./qcow2:x", "raw - ./qcow2:x"), ("nvme", "raw - nvme"),
      ("", "error: '' has no path"), ("raw:", "error: 'raw:' has no path"), ("raw:nvme:", "error: 'raw:nvme:' has no path"),
      ("vmdk:/a", "error: 'vmdk' is neither a format (raw, qcow2) nor a disk type"),
      ("nvme:raw:/a", "error: 'raw' is neither a format (raw, qcow2) nor a disk type"),
      (":/a", "error: '' is neither a format"),
    ])
  func extraDrive(text: String, expected: String) {
    let result = result({ try ExtraDrive(parsing: text) }) { "\($0.format.rawValue) \($0.type?.rawValue ?? "-") \($0.path)" }
    #expect(expected.hasPrefix("error") ? result.hasPrefix(expected) : result == expected, "\(result)")
  }

  @Test(
    "--ram",
    arguments: [
      ("512M", "536870912B"), ("1G:2G", "size=1073741824B,maxmem=2147483648B,slots=16"),
      ("1048576:4M:3", "size=1048576B,maxmem=4194304B,slots=3"), ("2048K", "2097152B"), ("1T", "1099511627776B"),
      ("", "error: '' is not a size such as 512M or 2G"), ("0", "error: '0' is not a size"), ("1g", "error: '1g' is not a size"),
      ("-1M", "error: '-1M' is not a size"), ("1.5G", "error: '1.5G' is not a size"), ("M", "error: 'M' is not a size"),
      ("2G:1G", "error: the maximum is less than the size"), ("1G:2G:0", "error: '0' is not 1 to 256 slots"),
      ("1G:2G:1:1", "error: '1G:2G:1:1' is not BYTES[:MAXBYTES[:SLOTS]]"), ("1", "error: '1' is not between"),
      ("99999999999T", "error: '99999999999T' is not between"),
    ])
  func ram(text: String, expected: String) {
    let result = result({ try MemorySize(parsing: text) }, \.qemuValue)
    #expect(expected.hasPrefix("error") ? result.hasPrefix(expected) : result == expected, "\(result)")
  }

  @Test(
    "--forward",
    arguments: [
      ("2222:22", "tcp:127.0.0.1:2222-:22"), ("udp:53:5353", "udp:127.0.0.1:53-:5353"), ("0.0.0.0:80:8080", "tcp:0.0.0.0:80-:8080"),
      ("tcp:10.0.0.1:1:65535", "tcp:10.0.0.1:1-:65535"), ("22", "error: '22' is not [tcp:|udp:]"), ("", "error: '' is not [tcp:"),
      ("1:2:3:4:5", "error: '1:2:3:4:5' is not"), ("0:22", "error: '0' is not a port"), ("65536:22", "error: '65536' is not a port"),
      ("x:22", "error: 'x' is not a port"), ("+1:22", "error: '+1' is not a port"),
      ("localhost:80:80", "error: 'localhost' is not an IPv4"),
      ("sctp:1:2", "error: 'sctp' is not an IPv4 address"), ("tcp:22", "error: 'tcp:22' is not"), (":80:80", "error: '' is not an IPv4"),
    ])
  func forward(text: String, expected: String) {
    let result = result({ try PortForward(parsing: text) }, \.rule)
    #expect(expected.hasPrefix("error") ? result.hasPrefix(expected) : result == expected, "\(result)")
  }

  @Test(
    "--bind",
    arguments: [
      ("/a", "/a /a"), ("/a:/b", "/a /b"), ("a:/b c", "a /b c"), (#"/a\:b:/c"#, "/a:b /c"), (#"/a\\:/c"#, #"/a\ /c"#),
      ("a", "error: where the guest mounts it must be an absolute path: 'a' is not"), ("/a:b", "error: where the guest"),
      ("", "error: '' is not SOURCE"), ("/a:", "error: '/a:' is not"), (":/a", "error: ':/a' is not"),
      ("/a:/b:/c", "error: '/a:/b:/c' is not"),
    ])
  func bind(text: String, expected: String) {
    let result = result({ try BindMount(parsing: text, isReadOnly: false) }) { "\($0.source) \($0.target)" }
    #expect(expected.hasPrefix("error") ? result.hasPrefix(expected) : result == expected, "\(result)")
  }

  @Test("a folder's line in fstab")
  func mountLine() throws {
    #expect(
      try BindMount(parsing: "/x:/a b\\\\c", isReadOnly: true).mountLine(tag: "mnt0") == "mnt0 /a\\040b\\134c virtiofs ro,x-initrd.mount\n")
    let lineEnds = try BindMount(parsing: "/x:/a\r\nb\n\u{301}", isReadOnly: true).mountLine(tag: "mnt0")
    #expect(Array(lineEnds.utf8) == Array("mnt0 /a\r\\012b\\012\u{301} virtiofs ro,x-initrd.mount\n".utf8))
    #expect(try BindMount(parsing: "/x", isReadOnly: false).mountLine(tag: "mnt1") == "mnt1 /x virtiofs rw,x-initrd.mount\n")
  }

  @Test(
    "--set-credential",
    arguments: [
      ("a:b", "a=b"), ("a.b-c:", "a.b-c="), ("a:b:c", "a=b:c"), (#"a:x\n\x41\101\u00fc\\"#, "a=x\nAAü\\"),
      ("", "error: it is not NAME:VALUE"), ("a", "error: it is not NAME:VALUE"), (":x", "error: '' is no name for a credential"),
      ("a/b:x", "error: 'a/b' is no name"), ("..:x", "error: '..' is no name"), ("a=b:x", "error: 'a=b' is no name"),
      ("a b:x", "error: 'a b' is no name"), (#"a:\q"#, "error: it has a backslash before what is no escape of C"),
      (#"a:\"#, "error: it ends in a lone backslash"),
      (#"a:\x+f"#, "error: the escape at its end"), (#"a:\u+041"#, "error: the escape at its end"),
      (#"a:\0+1"#, "error: the escape at its end"), (#"a:\x-0"#, "error: the escape at its end"),
      (#"a:\x4"#, "error: the escape at its end"), (#"a:\400"#, "error: it has an octal escape above 377"),
      (#"a:\ud800"#, "error: it has an escape for a character"),
    ])
  func literalCredential(text: String, expected: String) {
    let result = result({ try Credential(literal: text, option: "--set-credential") }) { credential in
      guard case .value(let bytes) = credential.source else { return "?" }
      return "\(credential.name)=\(String(decoding: bytes, as: UTF8.self))"
    }
    #expect(expected.hasPrefix("error") ? result.hasPrefix(expected) : result == expected, "\(result)")
  }

  @Test("a secret is not repeated in messages")
  func secret() throws {
    #expect(try Credential(literal: "a:hidden", option: "--set-credential").option == "--set-credential=a:…")
  }

  @Test(
    "--load-credential",
    arguments: [
      ("a:/f", "/f"), ("a:./f", "./f"), ("a:f", "/own/f"), ("a:/f:g", "/f:g"), ("a:", "error: 'a:' has no path"),
      ("a", "error: 'a' is not NAME:PATH"),
    ])
  func loadedCredential(text: String, expected: String) {
    let result = result({
      try Credential(file: text, option: "--load-credential") { $0 == "CREDENTIALS_DIRECTORY" ? "/own" : nil }
    }) { credential in
      guard case .file(let path) = credential.source else { return "?" }
      return path.string
    }
    #expect(result == expected)
  }

  @Test(
    "Base64, as RFC 4648 has it",
    arguments: [
      ("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foob", "Zm9vYg=="), ("fooba", "Zm9vYmE="), ("foobar", "Zm9vYmFy"),
    ])
  func base64(text: String, encoded: String) { #expect(Base64.encode(Array(text.utf8)) == encoded) }

  @Test("every byte has its place in Base64")
  func base64Bytes() { #expect(Base64.encode([0xFB, 0xEF, 0xBE, 0xFF, 0, 0x10]) == "++++/wAQ") }

  @Test(
    "--uuid",
    arguments: [
      ("0123456789ABCDEF0123456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"),
      ("01234567-89ab-cdef-0123-456789abcdef", "01234567-89ab-cdef-0123-456789abcdef"), ("", "error"), ("x", "error"),
      ("01234567-89ab-cdef-0123-456789abcde", "error"), ("0123456789ab-cdef-0123-456789abcdef01", "error"),
      ("g1234567-89ab-cdef-0123-456789abcdef", "error"),
      ("00000000000000000000000000000000", "error: a UUID of zeroes alone stands for none"),
    ])
  func uuid(text: String, expected: String) {
    let result = result({ try MachineUUID(parsing: text) }, \.description)
    #expect(expected.hasPrefix("error") ? result.hasPrefix(expected) : result == expected, "\(result)")
  }

  @Test(
    "a choice",
    arguments: [
      ("auto", .auto), ("yes", .yes), ("1", .yes), ("On", .yes), ("no", .no), ("false", .no), ("0", .no), ("maybe", nil), ("", nil),
    ]
      as [(String, Tristate?)])
  func tristate(text: String, expected: Tristate?) { #expect(Tristate(parsing: text) == expected) }

  @Test(
    "--firmware",
    arguments: [
      ("bios", .bios), ("uefi", .uefi), ("none", Firmware.none), ("/a/b.json", .descriptor("/a/b.json")), ("./x", .descriptor("./x")),
      ("coreboot", nil), ("", nil),
    ] as [(String, Firmware?)])
  func firmware(text: String, expected: Firmware?) { #expect((try? Firmware(parsing: text)) == expected) }

  @Test(
    "memory that is shared has its size in bytes, or a unit",
    arguments: [("1G", "1G"), ("512", "512M"), ("size=2G,slots=2", "2G"), ("size=64", "64M"), ("536870912B", "536870912B")])
  @EventLoopActor
  func sharedMemory(memory: String, size: String) { #expect(CommandLineDevices.size(memory) == size) }

  @Test(
    "which machines of the user's own have ports for devices",
    arguments: [
      ([], true), (["-machine", "q35,smm=on"], true), (["-M", "type=pc-q35-9.0"], true), (["-machine", "virt"], true),
      (["-machine", "pc"], false), (["-M", "none"], false), (["-machine"], true), (["-machine", "pc", "-machine", "q35"], true),
    ] as [([String], Bool)])
  func startPorts(arguments: [String], arePossible: Bool) throws {
    var ports = StartPorts(qemuArguments: arguments)
    #expect(ports.arePossible == arePossible)
    let buses = try (0..<StartPorts.most).map { _ in try ports.take() }
    #expect(buses == (0..<StartPorts.most).map { arePossible ? "qv-c\($0)" : nil })
    #expect((try? ports.take()) == nil || !arePossible)
  }

  @Test("an address for AF_VSOCK is the same each time, and never a host's")
  @EventLoopActor
  func vsockAddress() throws {
    let name = try #require(MachineName("web"))
    let candidates = (0..<1000).map { Vsock.candidate(name, attempt: $0) }
    #expect(candidates == (0..<1000).map { Vsock.candidate(name, attempt: $0) })
    #expect(candidates.allSatisfy { $0 >= 3 && $0 < UInt32.max } && Set(candidates).count > 990)
  }
}
