import CSystemd
import Glibc
import SystemPackage
public import SystemdEvent

/// Polkit's side of `org.freedesktop.PolicyKit1.Authority`, which answers as the test says and keeps what it was asked.
@EventLoopActor
public final class PolkitAuthority {
  /// A question, as it came.
  public struct Question: Sendable {
    public var action = ""
    public var details: [String: String] = [:]
    public var mayInteract = false
    public var cancellation = ""
    /// What kind of subject it is about, what is told of that, and what the descriptor is of.
    public var subject = ""
    public var facts: [String: UInt64] = [:]
    public var process: Int32 = 0
  }

  public enum Verdict: Sendable, Equatable {
    case authorised, no, challenge
    /// Not before ``release(_:)``.
    case later
    /// An error of this name.
    case error(String)
  }

  /// Answers each question.
  public var verdict: (Question) -> Verdict = { _ in .no }
  public private(set) var questions: [Question] = []
  /// The ids of the questions that were taken back.
  public private(set) var cancelled: [String] = []

  private let bus: OpaquePointer
  private var held: [OpaquePointer] = []
  private let changes = Subscribers<Void>()
  private static let interface = "org.freedesktop.PolicyKit1.Authority"

  /// Connects to a bus and takes polkit's name there.
  public init(at address: String) throws {
    var opened: OpaquePointer?
    try check("sd_bus_new", sd_bus_new(&opened))
    guard let opened else { throw SystemdError("sd_bus_new", .noMemory) }
    bus = opened
    try check("sd_bus_set_address", sd_bus_set_address(bus, address))
    try check("sd_bus_set_bus_client", sd_bus_set_bus_client(bus, 1))
    try check("sd_bus_start", sd_bus_start(bus))
    // Unretained: this object owns the bus, and with it the object.
    let userdata = Unmanaged.passUnretained(self).toOpaque()
    try check("sd_bus_add_object", sd_bus_add_object(bus, nil, "/org/freedesktop/PolicyKit1/Authority", Self.callback, userdata))
    // Waits for the bus, which is another process.
    try check("sd_bus_request_name", sd_bus_request_name(bus, "org.freedesktop.PolicyKit1", 0))
    try check("sd_bus_attach_event", sd_bus_attach_event(bus, EventLoop.shared.event, CInt(SD_EVENT_PRIORITY_NORMAL)))
  }

  isolated deinit { end() }

  /// Leaves the bus, as polkit does when it ends. Questions that are held get no answer.
  public func end() {
    for message in held { sd_bus_message_unref(message) }
    held = []
    sd_bus_close(bus)
  }

  /// Answers all questions that are held, the oldest first.
  public func release(_ verdict: Verdict) throws {
    let messages = held
    held = []
    for message in messages {
      defer { sd_bus_message_unref(message) }
      try answer(message, verdict)
    }
  }

  /// Waits until something is true.
  public func wait(_ what: String, until condition: (PolkitAuthority) -> Bool) async throws {
    while !condition(self) {
      let changed = Promise<Void>()
      let subscription = changes.add { changed.fulfil() }
      defer { changes.remove(subscription) }
      try await changed.soon(what)
    }
  }

  // MARK: calls

  private nonisolated static let callback: sd_bus_message_handler_t = { message, userdata, _ in
    guard let message, let userdata else { return 0 }
    // Unsafe only in name: sd-bus calls on the loop's thread, and the message is valid for this call at least.
    nonisolated(unsafe) let borrowed = message
    let authority = Unmanaged<PolkitAuthority>.fromOpaque(userdata).takeUnretainedValue()
    return EventLoopActor.assumeIsolated { authority.called(borrowed) ? 1 : 0 }
  }

  private func called(_ message: OpaquePointer) -> Bool {
    defer { changes.publish(()) }
    if sd_bus_message_is_method_call(message, Self.interface, "CancelCheckAuthorization") > 0 {
      cancelled.append(text(message))
      return (try? reply(to: message) { _ in }) != nil
    }
    guard sd_bus_message_is_method_call(message, Self.interface, "CheckAuthorization") > 0 else { return false }
    let question = question(in: message)
    questions.append(question)
    let verdict = verdict(question)
    if verdict == .later {
      held.append(sd_bus_message_ref(message))
      return true
    }
    return (try? answer(message, verdict)) != nil
  }

  private func question(in message: OpaquePointer) -> Question {
    var question = Question()
    sd_bus_message_enter_container(message, letter("r"), "sa{sv}")
    question.subject = text(message)
    entries(message, "sv") { name in
      var contents: UnsafePointer<CChar>?
      sd_bus_message_peek_type(message, nil, &contents)
      guard let contents else { return }
      sd_bus_message_enter_container(message, letter("v"), contents)
      var value: UInt64 = 0
      sd_bus_message_read_basic(message, contents.pointee, &value)
      if name == "pidfd" { question.process = processBehind(CInt(truncatingIfNeeded: value)) }
      question.facts[name] = value
      sd_bus_message_exit_container(message)
    }
    sd_bus_message_exit_container(message)
    question.action = text(message)
    entries(message, "ss") { name in question.details[name] = text(message) }
    var flags: UInt32 = 0
    sd_bus_message_read_basic(message, letter("u"), &flags)
    question.mayInteract = flags == 1
    question.cancellation = text(message)
    return question
  }

  /// The id of the process that a pidfd of the message's is of.
  private func processBehind(_ descriptor: CInt) -> Int32 {
    guard let copy = Optional(fcntl(descriptor, F_DUPFD_CLOEXEC, 3)), copy >= 0 else { return -1 }
    return ProcessIdentity.Started(OwnedDescriptor(owning: copy))?.id ?? -1
  }

  private func entries(_ message: OpaquePointer, _ types: String, _ body: (String) -> Void) {
    sd_bus_message_enter_container(message, letter("a"), "{\(types)}")
    while sd_bus_message_enter_container(message, letter("e"), types) > 0 {
      body(text(message))
      sd_bus_message_exit_container(message)
    }
    sd_bus_message_exit_container(message)
  }

  private func text(_ message: OpaquePointer) -> String {
    var text: UnsafePointer<CChar>?
    sd_bus_message_read_basic(message, letter("s"), &text)
    return text.map { String(cString: $0) } ?? ""
  }

  // MARK: answers

  private func answer(_ message: OpaquePointer, _ verdict: Verdict) throws {
    if case .error(let name) = verdict {
      var reply: OpaquePointer?
      try name.withCString { name in
        var error = sd_bus_error(name: name, message: name, _need_free: 0)
        try check("sd_bus_message_new_method_error", sd_bus_message_new_method_error(message, &reply, &error))
      }
      try send(reply)
      return
    }
    try reply(to: message) { reply in
      sd_bus_message_open_container(reply, letter("r"), "bba{ss}")
      for value in [verdict == .authorised, verdict == .challenge] {
        var number: CInt = value ? 1 : 0
        sd_bus_message_append_basic(reply, letter("b"), &number)
      }
      sd_bus_message_open_container(reply, letter("a"), "{ss}")
      sd_bus_message_close_container(reply)
      sd_bus_message_close_container(reply)
    }
  }

  private func reply(to message: OpaquePointer, _ write: (OpaquePointer) -> Void) throws {
    var reply: OpaquePointer?
    try check("sd_bus_message_new_method_return", sd_bus_message_new_method_return(message, &reply))
    if let reply { write(reply) }
    try send(reply)
  }

  private func send(_ reply: OpaquePointer?) throws {
    defer { sd_bus_message_unref(reply) }
    try check("sd_bus_send", sd_bus_send(bus, reply, nil))
  }

  private func letter(_ type: Unicode.Scalar) -> CChar { CChar(truncatingIfNeeded: type.value) }
}
