import SystemPackage
import SystemdEvent
import TestSupport
import Testing

/// What the daemon tells the journal, which the test plays: the daemon sees a /run of its own, with the test's socket in the journal's
/// place.
@Suite("the journal has fields", .onEventLoop, .serialized) struct JournalTests {
  private static let launcher = """
    mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount --bind "$JOURNAL" /run/systemd/journal || exit
    JOURNAL_STREAM=$(stat -Lc %d:%i /proc/self/fd/2) exec "$0" "$@"
    """

  @Test("of refusals, and of sessions that begin and end") @EventLoopActor
  func fields() async throws {
    let folder = try TemporaryFolder()
    let journal = try NotifySocket(at: folder.path.appending("socket"))
    let policy = try folder.file("policy", Array("observe user:61003".utf8))
    let arguments = ["run", "--machine", "m", "--accel=tcg", "--audit", "--policy", policy.string, "--", "-machine", "none"]
    let launcher = ["env", "JOURNAL=\(folder.path)", "unshare", "--mount", "sh", "-c", Self.launcher]
    _ = try await withDaemon(arguments, launcher: launcher) { daemon in
      let refused = try await command(
        "setpriv",
        [
          "--reuid=61003", "--regid=61004", "--clear-groups", "varlinkctl", "call", daemon.socket.string,
          "io.systemd.MachineInstance.Pause", "{}",
        ])
      #expect(refused.status != 0, "\(refused.output) \(refused.error)")
      _ = try await daemon.qmp(#"{"execute":"object-add","arguments":{"qom-type":"secret","id":"s","data":"a\\nQMP_VARLINK_UID=7"}}"#)
      while !journal.messages.contains(where: { $0.contains("MESSAGE=session closed") }) { try await quiet() }
    }
    let refusal = try #require(Self.fields(journal, "refused"))
    #expect(refusal["QMP_VARLINK_UID"] == "61003" && refusal["QMP_VARLINK_GID"] == "61004" && refusal["PRIORITY"] == "4")
    #expect(refusal["QMP_VARLINK_METHOD"] == "io.systemd.MachineInstance.Pause" && refusal["QMP_VARLINK_CLASS"] == "control")
    let opened = try #require(Self.fields(journal, "session opened"))
    #expect(opened["QMP_VARLINK_UID"] == "0" && opened["QMP_VARLINK_ACCESS"] == "full" && opened["QMP_VARLINK_MACHINE"] == "m")
    let closed = try #require(Self.fields(journal, "session closed"))
    #expect(closed["QMP_VARLINK_SESSION"] == opened["QMP_VARLINK_SESSION"] && closed["QMP_VARLINK_SESSION"] != nil)
    let commands = journal.messages.map(Self.parse).filter { $0["MESSAGE"] == "command" }
    #expect(commands.map { $0["QMP_VARLINK_COMMAND"] } == [#""qmp_capabilities""#, #""object-add""#])
    #expect(commands.last?["QMP_VARLINK_ARGUMENTS"]?.contains("***") == true)
    #expect(commands.allSatisfy { $0["QMP_VARLINK_SESSION"] == opened["QMP_VARLINK_SESSION"] && $0["QMP_VARLINK_UID"] == "0" })
  }

  @EventLoopActor
  private static func fields(_ journal: NotifySocket, _ message: String) -> [String: String]? {
    journal.messages.map(parse).first { $0["MESSAGE"] == message }
  }

  /// The fields of a message whose values have no line ends.
  private static func parse(_ message: String) -> [String: String] {
    let pairs = message.split(separator: "\n").compactMap { line -> (String, String)? in
      let parts = line.split(separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
      return parts.count == 2 ? (String(parts[0]), String(parts[1])) : nil
    }
    return Dictionary(pairs) { first, _ in first }
  }
}
