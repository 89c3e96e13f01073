import ArgumentParser

/// The command line's root.
@main
struct QMPControl: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "qmpctl",
    abstract: "Control QEMU virtual machines that qmp-varlinkd serves.",
    discussion: """
      NAME is a machine's name, or the path of its control socket or of the folder that has it. Machines are looked for in \
      $XDG_RUNTIME_DIR/qmp-varlink and in /run/qmp-varlink, or in the folders of $QMPCTL_PATH, with colons between them, instead. \
      $NO_COLOR turns colours off, $SYSTEMD_SSH names the SSH client for --host.

      EXIT STATUS
        0      it is done
        1      the machine refused, or failed at it
        64     the command line is wrong
        69     there is no such machine or host, or no connection to it
      """,
    version: "0.1.0",
    subcommands: [
      ListCommand.self, StatusCommand.self, PauseCommand.self, ResumeCommand.self, RebootCommand.self, PowerOffCommand.self,
      TerminateCommand.self, EventsCommand.self, SessionsCommand.self, MonitorsCommand.self, MonitorCommand.self,
      QMPShellCommand.self, TopCommand.self, ProxyCommand.self, StorageCommand.self, ScreenshotCommand.self, SchemaCommand.self,
      CallCommand.self,
    ])
}
