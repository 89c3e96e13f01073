import Logging
import Machine
import QAPI
import QMP
import SystemdEvent
import SystemdJSON
import Varlink

extension QMPService {
  /// The longest arguments, in bytes. The monitor is everybody's, and QEMU reads some 150 KB a second.
  private static let longestArguments = 256 << 10
  /// The deepest arguments; QEMU takes 1024 levels, and answers more than once when there are more.
  private static let deepestArguments = 512
  private static let longestName = 256

  /// A method that is a command.
  func call(_ command: Translation.Command, _ call: VarlinkCall) async throws -> JSONVariant? {
    let arguments: JSONVariant?
    do throws(ValueError) {
      arguments = try translation.arguments(of: command, call.parameters)
    } catch {
      logger.debug("\(command.method): \(error)")
      throw VarlinkError.invalidParameter(error.path)
    }
    let reply = try await execute(
      command.name, arguments, isOutOfBand: command.allowsOutOfBand, descriptor: command.descriptorParameter, of: call)
    do throws(ValueError) {
      return try await translation.output(of: command, reply, pause: nextTurn)
    } catch {
      logger.warning("QEMU's reply to \(command.name) is not of its type: \(error)")
      throw VarlinkError("\(Self.name).BadReply", .object(["command": .string(command.name), "reason": .string("\(error)")]))
    }
  }

  /// The method `Execute`.
  func execute(_ call: VarlinkCall) async throws -> JSONVariant? {
    let parameters = call.parameters
    guard let name = parameters["command"]?.string, Self.isCommandName(name) else { throw VarlinkError.invalidParameter("command") }
    let arguments = parameters["arguments"].flatMap { $0.isNull ? nil : $0 }
    let reply = try await execute(
      name, arguments, isOutOfBand: parameters["oob"]?.boolean ?? false, descriptor: "fileDescriptorIndex", of: call)
    return .object([("return", reply)])
  }

  /// What can be a command's name; it goes to QEMU without being escaped.
  private static func isCommandName(_ name: String) -> Bool {
    func isLetterOrDigit(_ byte: UInt8) -> Bool {
      (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte | 0x20) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
    }
    return !name.isEmpty && name.utf8.count <= longestName && name.utf8.allSatisfy { isLetterOrDigit($0) || "-_.".utf8.contains($0) }
  }

  /// Executes a command on behalf of a caller.
  ///
  /// - Parameter descriptor: the parameter that tells which descriptor of the call goes with the command, if it is there.
  private func execute(
    _ name: String, _ arguments: JSONVariant?, isOutOfBand: Bool, descriptor parameter: String?, of call: VarlinkCall
  ) async throws -> JSONVariant {
    if let reason = try await refusal(of: name, arguments) {
      throw VarlinkError("\(Self.name).Refused", .object(["command": .string(name), "reason": .string(reason)]))
    }
    do {
      if isOutOfBand { return try await machine.executeOutOfBand(name, arguments) }
      guard let parameter, let index = call.parameters[parameter], !index.isNull else {
        return try await machine.execute(QMPCommand(name, arguments))
      }
      let descriptor = try call.takeDescriptor(parameter)
      let raw = descriptor.raw
      let reply = try await machine.execute(QMPCommand(name, arguments, descriptors: [raw]))
      withExtendedLifetime(descriptor) {}
      return reply
    } catch MachineError.qmp(.execute(_, let errorClass, let desc)) {
      throw VarlinkError("\(Self.name).QMPError", .object(["class": .string(errorClass), "desc": .string(desc)]))
    }
  }

  /// Why a command is not for callers; nil if it is.
  private func refusal(of name: String, _ arguments: JSONVariant?) async throws(MachineError) -> String? {
    if unanswered.contains(name) { return "QEMU does not answer it" }
    if let arguments, let reason = Self.complaint(about: arguments) { return reason }
    return try await ControlProtection.refusal(of: name, arguments, machine)
  }

  /// What is wrong with arguments, whatever the command.
  private static func complaint(about arguments: JSONVariant) -> String? {
    arguments.withText { text in
      if text.count > longestArguments {
        return "arguments of more than \(longestArguments) bytes would keep all others waiting; a session (AcquireQMP) takes them"
      }
      return depth(of: text) > deepestArguments ? "the arguments are nested deeper than \(deepestArguments) levels" : nil
    }
  }

  private static func depth(of text: UnsafeRawBufferPointer) -> Int {
    var depth = 0
    var deepest = 0
    var inString = false
    var afterBackslash = false
    for byte in text {
      switch byte {
      case _ where afterBackslash: afterBackslash = false
      case UInt8(ascii: "\\"): afterBackslash = true
      case UInt8(ascii: "\""): inString.toggle()
      case UInt8(ascii: "{") where !inString, UInt8(ascii: "[") where !inString:
        depth += 1
        deepest = max(deepest, depth)
      case UInt8(ascii: "}") where !inString, UInt8(ascii: "]") where !inString: depth -= 1
      default: break
      }
    }
    return deepest
  }
}
