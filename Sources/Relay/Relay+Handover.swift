public import SystemdEvent
public import SystemdJSON

// A session that goes on in the next run of the daemon. The client and QEMU notice nothing of that: they have the same sockets, and what
// was on its way between them is here.
extension Relay {
  /// The session as it is, for ``init(carried:_:options:)``. This one must not be used any more then.
  ///
  /// - Returns: nil while it is being parked, and when it has just woken.
  public func carried(_ handover: Handover) throws(SystemdError) -> JSONVariant? {
    guard parking == nil, skipping == nil else { return nil }
    let isOver = drained.result != nil
    let hasInput = inputDescriptor != nil
    let isOneSocket = hasInput && outputDescriptor != nil && input?.isSocket == true && output?.isSocket == true
    var held: [JSONVariant] = []
    for descriptor in heldDescriptors.raw { held.append(try handover.add(descriptor)) }
    return .object([
      "input": try hasInput ? input.map { endpoint throws(SystemdError) in try handover.add(endpoint.raw) } : nil,
      // Of one open file there is to be one descriptor.
      "output": try outputDescriptor != nil && !isOneSocket
        ? output.map { endpoint throws(SystemdError) in try handover.add(endpoint.raw) } : nil,
      "oneSocket": .boolean(isOneSocket),
      "monitor": try isOver ? nil : monitor.map { endpoint throws(SystemdError) in try handover.add(endpoint.raw) },
      "over": .boolean(isOver),
      "commands": commands.carried, "replies": replies.carried, "refusals": refusals?.carried, "drain": isOver ? nil : drain?.carried,
      "upstream": try upstream.carried(handover), "downstream": try downstream.carried(handover), "held": .array(held),
      "names": .array(descriptorNames.map { .string($0) }), "passes": .boolean(hasPassedDescriptors),
      "outOfBand": .boolean(mayBeOutOfBand), "inputEnded": .boolean(inputHasEnded), "reason": reasonForEnd.map { .string($0) },
      "statistics": statistics.carried,
    ])
  }
}

extension Relay.Statistics {
  @EventLoopActor var carried: JSONVariant {
    let counts = [bytesFromClient, bytesToClient, commands, replies]
    let now = ContinuousClock.now
    let ages = [lastActivity, lastCommand].map { now - $0 }
    return .object([
      "counts": .array(counts.map { .integer($0) }), "agesMSec": .array(ages.map { .integer($0.microseconds / 1000) }),
    ])
  }

  @EventLoopActor init(carried: JSONVariant) throws(Handover.Failure) {
    guard let counts = carried["counts"]?.elements?.compactMap(\.integer), counts.count == 4,
      let ages = carried["agesMSec"]?.elements?.compactMap(\.integer), ages.count == 2
    else { throw Handover.Failure("a session's statistics that cannot be read") }
    (bytesFromClient, bytesToClient, commands, replies) = (Int(counts[0]), Int(counts[1]), Int(counts[2]), Int(counts[3]))
    (lastActivity, lastCommand) = (.now - .milliseconds(ages[0]), .now - .milliseconds(ages[1]))
  }
}
