import Control
import Glibc
import QAPI
import QMP
import SystemdEvent
import SystemdJSON
import Terminal

/// Executes commands that nobody types, and prints the replies for programs.
@EventLoopActor
final class QMPScript {
  private let session: QMPSession
  private let isHMP: Bool
  private let keepsGoing: Bool
  private let isTerminal = StandardOutput.isTerminal
  /// The first failure to print, which ends it.
  private var unprinted: (any Error)?
  private var status: CInt = 0

  /// - Parameters:
  ///   - showsEvents: whether events are among what is printed.
  ///   - keepsGoing: whether an error is not the end.
  init(_ session: QMPSession, isHMP: Bool, showsEvents: Bool, keepsGoing: Bool) {
    self.session = session
    self.isHMP = isHMP
    self.keepsGoing = keepsGoing
    guard showsEvents else { return }
    session.onEvent = { [weak self] event in self?.print(String(decoding: event.text, as: UTF8.self)) }
  }

  /// Executes one command.
  func run(_ words: [String]) async throws -> CInt {
    _ = try await session.negotiate()
    try await execute(words.joined(separator: " ")) { TypedLine(words: words) }
    return status
  }

  /// Executes the commands of a script, one a line; `#` begins a line that is none.
  func run(_ input: StandardInput) async throws -> CInt {
    _ = try await session.negotiate()
    let ended = session.ended.whenFulfilled { _ in input.close() }
    defer { session.ended.forget(ended) }
    while status == 0 || keepsGoing, let line = try await input.line() {
      let command = line.trimmed
      if !command.isEmpty, !command.hasPrefix("#") { try await execute(command) { try TypedLine(command) } }
    }
    if input.isClosed, let error = session.ended.result { throw session.failure(error) }
    return status
  }

  private func execute(_ text: String, _ line: () throws -> TypedLine) async throws {
    let request: QMPRequest
    do {
      request = isHMP ? .hmp(text) : try await QMPRequest(line()) { try await session.schema() }
    } catch let error where error is ArgumentError || error is InvalidCommand {
      status = 1
      return complain(ControlError(.failed, "\(error)"))
    }
    let reply = try await session.send(request)
    if isHMP, case .success(let value) = reply.result, let output = value.string {
      try StandardOutput.write(isTerminal ? HMPText.forTerminal(output) + "\n" : HMPText.forPipe(output))
    } else {
      print(reply.text)
    }
    if let unprinted { throw unprinted }
    guard case .failure(let refusal) = reply.result else { return }
    status = 1
    complain(ControlError(.failed, "\(request.name): \(refusal)"))
  }

  /// Prints a message of QEMU's on one line. Line ends in JSON, of a monitor that is pretty, are white space: those in strings are escaped.
  private func print(_ message: String) {
    guard unprinted == nil else { return }
    let line = message.split { $0 == "\n" || $0 == "\r\n" || $0 == "\r" }.joined(separator: " ").trimmed
    do { try StandardOutput.write((isTerminal ? line.escapedForTerminal(atMost: .max) : line) + "\n") } catch { unprinted = error }
  }
}

extension String {
  /// The text without blanks and line ends around it.
  var trimmed: String {
    let start = firstIndex { !$0.isWhitespace } ?? endIndex
    let end = lastIndex { !$0.isWhitespace }.map { index(after: $0) } ?? start
    return String(self[start..<end])
  }
}
