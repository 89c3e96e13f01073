import ArgumentParser
import Control
import SystemPackage
import SystemdEvent
import SystemdJSON

/// `qmpctl screenshot`
struct ScreenshotCommand: ControlCommand {
  static let configuration = CommandConfiguration(
    commandName: "screenshot",
    abstract: "Save what is on a guest's screen as a PNG file.",
    discussion: """
      A file that is there is replaced once the picture is complete. FILE '-' is standard output. With --host it is a file of this \
      host all the same; the other one must have qmpctl.
      """)

  @OptionGroup var machine: MachineOptions

  @Argument(help: ArgumentHelp("The file to make.", valueName: "file"), completion: .file(extensions: ["png"]))
  var file: String

  @Option(name: .long, help: ArgumentHelp("The display device, by its id in QEMU. Default: the first.", valueName: "id"))
  var device: String?

  @Option(name: .long, help: ArgumentHelp("Which of the heads of --device.", valueName: "number"))
  var head: Int?

  @OptionGroup var output: OutputOptions

  func validate() throws {
    guard head == nil || device != nil else { throw ValidationError("--head needs --device.") }
    guard file != "-" || !output.json else { throw ValidationError("The picture itself is no JSON: --json needs a FILE.") }
    guard !file.isEmpty else { throw ValidationError("FILE must not be empty.") }
  }

  func execute() async throws -> CInt {
    if file == "-", StandardOutput.isTerminal { throw ControlError(.failed, "a picture is not for a terminal: FILE '-' is for pipes") }
    let picture = try await picture()
    if file == "-" {
      try StandardOutput.write(picture.png)
    } else {
      try replaceFile(FilePath(file), with: picture.png)
      if output.json {
        try output.write(
          .object([("path", .string(file)), ("width", .integer(picture.width)), ("height", .integer(picture.height))]))
      }
    }
    return 0
  }

  @EventLoopActor private func picture() async throws(ControlError) -> Screenshot {
    guard let host = machine.host else { return try await .take(of: try await machine.connect(), device: device, head: head) }
    let options = (device.map { ["--device=\($0)"] } ?? []) + (head.map { ["--head=\($0)"] } ?? [])
    let png = try await host.run(
      ["screenshot"] + options + ["--", machine.name, "-"], longestOutput: Screenshot.mostBytes, within: machine.time.limit)
    guard let picture = Screenshot(png) else { throw ControlError(.failed, "\(host.name) sends something else than a picture") }
    return picture
  }
}
