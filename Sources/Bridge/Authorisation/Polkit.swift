public import Logging
import SystemPackage
import SystemdBus
public import SystemdEvent
import SystemdJSON
import Varlink

/// Asks polkit, over the system's message bus, whether a caller may do what the policy does not grant.
///
/// Nothing is opened before the first question. Where there is no bus, or no polkit on it, the policy alone decides; that is logged
/// once, until there is an answer again.
@EventLoopActor
public final class Polkit {
  /// How many questions there may be at once, and how long they may take.
  struct Limits {
    var questions = 64
    /// Of one user's callers.
    var questionsPerUser = 8
    /// For polkit alone. Its rules may run programs; sd-bus has the same limit for any call.
    var answer = Duration.seconds(25)
    /// For a person who is asked for a password.
    var interaction = Duration.seconds(300)
  }

  /// What became of a question.
  enum Answer: Sendable, Equatable {
    case authorised
    /// With the reason, if polkit has not simply said no.
    case denied(String?)
    /// Somebody would have to authenticate, and could not be asked.
    case challenge
    /// The caller does not wait any more.
    case callerGone
    /// There is nobody to ask.
    case absent(String)
  }

  /// The parameter of a call that permits polkit to ask a person, by systemd's convention.
  static let interactionParameter = "allowInteractiveAuthentication"

  private let machine: String
  private let limits: Limits
  private let logger: Logger
  private var bus: SystemBus?
  private var questions: [UInt32: Int] = [:]
  private var lastQuestion = 0
  private var isAbsent = false

  /// - Parameter machine: the machine's name, which polkit's rules and dialogues are told.
  public convenience init(machine: String, logger: Logger) { self.init(machine: machine, limits: Limits(), logger: logger) }

  init(machine: String, limits: Limits, logger: Logger) {
    self.machine = machine
    self.limits = limits
    self.logger = logger
  }

  /// Asks whether whoever makes a call has a privilege.
  func ask(_ privilege: Privilege, for call: VarlinkCall) async -> Answer {
    guard let user = call.peer.user else { return .denied("it is not known who calls") }
    guard questions.values.reduce(0, +) < limits.questions else { return .denied("\(limits.questions) questions are under way") }
    guard questions[user, default: 0] < limits.questionsPerUser else {
      return .denied("\(limits.questionsPerUser) questions about the user are under way")
    }
    questions[user, default: 0] += 1
    defer { questions[user] = questions[user].flatMap { $0 > 1 ? $0 - 1 : nil } }

    let answer = await ask(privilege, user, call)
    if case .absent(let reason) = answer {
      if !isAbsent { logger.warning("polkit cannot be asked: the policy alone decides", metadata: ["reason": "\(reason)"]) }
      isAbsent = true
    }
    return answer
  }

  private func ask(_ privilege: Privilege, _ user: UInt32, _ call: VarlinkCall) async -> Answer {
    let process: OwnedDescriptor
    do throws(SystemdError) { process = try call.peerProcess() } catch {
      // Before Linux 6.5 it is never known. systemd's services ask nothing then either: by now its id may be another's.
      return .denied("the caller's process is not known: \(error.errno)")
    }
    let mayInteract = call.parameters[Self.interactionParameter]?.boolean ?? false
    lastQuestion += 1
    let cancellation = "qmp-varlink-\(lastQuestion)"
    let answer = Promise<Answer>()
    let bus: SystemBus
    let question: BusCall
    do throws(SystemdError) {
      bus = try connectedBus()
      let arguments: [BusValue] = [
        Self.subject(process, user), .string("\(Self.actionPrefix)\(privilege)"), .strings(["machine": machine, "method": call.method]),
        .uint32(mayInteract ? Self.allowUserInteraction : 0), .string(cancellation),
      ]
      question = try bus.call(Self.authority("CheckAuthorization"), arguments) { [self] reply in
        let said = Self.answer(in: reply)
        if case .absent = said {} else { isAbsent = false }
        answer.fulfil(said)
      }
    } catch {
      return .absent("\(error)")
    }
    let waiter = call.whenCallerGoes { answer.fulfil(.callerGone) }
    defer { call.forget(waiter) }
    let limit = mayInteract ? limits.interaction : limits.answer
    let result = await answer.value(within: limit)
    withExtendedLifetime(question) {}
    if result == nil || result == .callerGone {
      // A dialogue is taken away, too. If that cannot be sent, there is no bus to have it on.
      try? bus.send(Self.authority("CancelCheckAuthorization"), [.string(cancellation)])
    }
    return result ?? (mayInteract ? .denied("nobody authenticated in time") : .absent("no answer within \(limit)"))
  }

  /// The connection; another one, if that has ended.
  private func connectedBus() throws(SystemdError) -> SystemBus {
    if let bus, bus.isOpen { return bus }
    bus = nil
    let opened = try SystemBus()
    bus = opened
    return opened
  }

  // MARK: org.freedesktop.PolicyKit1.Authority

  private static let actionPrefix = "io.qmpvarlink."
  /// Of CheckAuthorizationFlags.
  private static let allowUserInteraction: UInt32 = 1

  private static func authority(_ member: String) -> SystemBus.Method {
    SystemBus.Method(
      destination: "org.freedesktop.PolicyKit1", path: "/org/freedesktop/PolicyKit1/Authority",
      interface: "org.freedesktop.PolicyKit1.Authority", member: member)
  }

  /// Whom polkit is asked about. polkit 124 goes by the descriptor, older ones by id and time.
  private static func subject(_ process: borrowing OwnedDescriptor, _ user: UInt32) -> BusValue {
    var facts: [String: BusValue] = ["pidfd": .descriptor(process.raw), "uid": .int32(Int32(bitPattern: user))]
    if let started = ProcessIdentity.Started(process) {
      facts["pid"] = .uint32(UInt32(started.id))
      facts["start-time"] = .uint64(started.time)
    }
    return .structure([.string("unix-process"), .variants(facts)])
  }

  /// What a reply says.
  private static func answer(in reply: BusMessage) -> Answer {
    if let error = reply.error {
      let words = "\(error.name): \(error.message)"
      // Its own errors are an answer, such as that it does not know the action. All others are the bus's.
      return error.name.hasPrefix("org.freedesktop.PolicyKit1.") ? .denied(words) : .absent(words)
    }
    do throws(SystemdError) {
      try reply.enterStructure("bba{ss}")
      let isAuthorised = try reply.readBoolean()
      let isChallenge = try reply.readBoolean()
      return isAuthorised ? .authorised : isChallenge ? .challenge : .denied(nil)
    } catch {
      return .denied("an answer that is not understood: \(error)")
    }
  }
}
