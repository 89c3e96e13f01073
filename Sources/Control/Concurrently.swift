import SystemdEvent

/// Does the same with each of some things, many at once.
///
/// - Parameter limit: how many; each may take descriptors, or a process.
/// - Returns: the results, in the order of the things.
@EventLoopActor
public func concurrently<Item: Sendable, Result: Sendable>(
  _ items: [Item], atMost limit: Int = 64, _ body: @escaping @EventLoopActor @Sendable (Item) async -> Result
) async -> [Result] {
  var results: [Promise<Result>] = []
  for (index, item) in items.enumerated() {
    // They take about the same time, so it does no harm that this waits for one in particular.
    if index >= limit { _ = await results[index - limit].value }
    let result = Promise<Result>()
    startTask { result.fulfil(await body(item)) }
    results.append(result)
  }
  var values: [Result] = []
  for result in results { values.append(await result.value) }
  return values
}
