import ArgumentParser

/// What kind of QMP session is wanted.
struct SessionOptions: ParsableArguments {
  /// What a session may do.
  enum Access: String, ExpressibleByArgument, CaseIterable {
    case full, query
  }

  /// How it gets at QEMU.
  enum Mode: String, ExpressibleByArgument, CaseIterable {
    case own, shared
  }

  @Option(
    name: .long,
    help: ArgumentHelp("What sessions may do: everything, or only commands that cannot change the machine.", valueName: "full|query"))
  var access: Access?

  @Option(
    name: .long,
    help: ArgumentHelp(
      "Whether a session has a monitor of its own, or shares one. Default: its own, where QEMU can add monitors.", valueName: "own|shared"))
  var mode: Mode?
}
