import Glibc
import SystemdEvent
import TestSupport
import Testing
import Varlink

@Suite struct VarlinkLeakTests {
  @Test("two hundred connections with all kinds of endings leave no descriptor behind")
  func connections() async {
    await #expect(processExitsWith: .success) {
      try await inOwnProcess {
        try await oneServer()
        try await quiet()
        let before = try openDescriptorCount()
        try await oneServer()
        try await quiet()
        #expect(try openDescriptorCount() == before)
      }
    }
  }
}

@EventLoopActor
private func oneServer() async throws {
  let service = try TestService()
  let may = Promise<Void>()
  for index in 0..<200 {
    service.mayUpgrade = index % 3 == 0 ? may : nil
    let client = try service.connect()
    switch index % 6 {
    case 0, 3:
      // Vanishes while the handler is at it, or while nothing has been read yet.
      try await client.peer.write(VarlinkUpgradeTests.request + "raw")
      if index % 2 == 0 { try await quiet() }
    case 1:
      try await client.peer.write(VarlinkUpgradeTests.request + "raw")
      _ = try await client.receive()
    case 2: _ = try await client.call("test.service.Echo", #"{"text":""}"#)
    case 4: try await client.send("test.service.Wait")
    default: try await client.peer.write(VarlinkUpgradeTests.request)
    }
    client.peer.close()
  }
  may.fulfil()
  service.release.fulfil(1)
  try await quiet()
  try await service.wait("every outcome") { $0.upgrades.count == $0.rawCalls }
  #expect(service.server.connectionCount == 0)
}
