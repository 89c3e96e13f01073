// swift-tools-version: 6.2
import PackageDescription

let package = Package(
  name: "qmp-varlink",
  products: [
    .executable(name: "qmp-varlinkd", targets: ["qmp-varlinkd"]),
    .executable(name: "qmpctl", targets: ["qmpctl"]),
    .executable(name: "qmp-simulator", targets: ["qmp-simulator"]),
    .library(name: "QMP", targets: ["QMP"]),
    .library(name: "Simulator", targets: ["Simulator"]),
    .library(name: "Varlink", targets: ["Varlink"]),
  ],
  dependencies: [
    .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
    .package(url: "https://github.com/apple/swift-collections", exact: "1.6.0"),
    .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
    .package(url: "https://github.com/apple/swift-system", exact: "1.8.1"),
    .package(url: "https://github.com/swiftlang/swift-subprocess", exact: "1.0.2", traits: []),
  ],
  targets: [
    // Each line reaches only lines below it.
    .executableTarget(
      name: "qmp-varlinkd",
      dependencies: [
        "Bridge", "Machine", "QMP", "Varlink", "SystemdBus", "SystemdEvent", "SystemdJSON", "CSystemd",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .executableTarget(
      name: "qmpctl",
      dependencies: [
        "Control", "QAPI", "QMP", "Terminal", "SystemdEvent", "SystemdJSON",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .executableTarget(
      name: "qmp-simulator",
      dependencies: [
        "Simulator", "SystemdEvent", "CSystemd",
        .product(name: "ArgumentParser", package: "swift-argument-parser"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    // What a client of people's has beside its command line: finding machines, connecting to them, tables.
    .target(
      name: "Control",
      dependencies: [
        "Varlink", "QAPI", "Terminal", "SystemdEvent", "SystemdJSON",
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .executableTarget(
      name: "varlink-example",
      dependencies: ["QMP", "Varlink", "SystemdEvent", "SystemdJSON", .product(name: "SystemPackage", package: "swift-system")],
      path: "examples/swift"),
    .target(
      name: "Bridge",
      dependencies: [
        "Interfaces", "Varlink", "Machine", "Relay", "QAPI", "QEMUJSON", "QMP", "SystemdBus", "SystemdEvent", "SystemdJSON",
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .target(
      name: "Machine",
      dependencies: [
        "QMP", "SystemdEvent", "SystemdJSON",
        .product(name: "Logging", package: "swift-log"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .target(name: "QAPI", dependencies: ["SystemdEvent", "SystemdJSON"]),
    .target(
      name: "Relay",
      dependencies: [
        "QEMUJSON", "SystemdEvent", "SystemdJSON",
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    // QEMU's side of QMP, for tests and for those who write clients. It shares no code with our own client, whose mistakes it would
    // make too, but JSON as QEMU has it, which is held against QEMU itself.
    .target(
      name: "Simulator",
      dependencies: [
        "QEMUJSON", "SystemdEvent",
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "OrderedCollections", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .target(
      name: "QMP",
      dependencies: [
        "SystemdEvent", "SystemdJSON",
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .target(
      name: "Varlink",
      dependencies: [
        "SystemdEvent", "SystemdJSON", "CSystemd",
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    // What a program needs to speak with a person at a terminal.
    .target(
      name: "Terminal",
      dependencies: [
        "SystemdEvent",
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .target(
      name: "SystemdEvent",
      dependencies: [
        "CSystemd",
        .product(name: "DequeModule", package: "swift-collections"),
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    // JSON with all of QEMU's extensions and peculiarities, and its words for what it does not accept.
    .target(name: "QEMUJSON"),
    .target(name: "SystemdJSON", dependencies: ["SystemdEvent", "CSystemd"]),
    // What the system's message bus is needed for.
    .target(
      name: "SystemdBus",
      dependencies: ["SystemdEvent", "CSystemd", .product(name: "SystemPackage", package: "swift-system")]),
    .target(
      // What is generated is for people to read; the daemon makes its own.
      name: "Interfaces", path: "interfaces", exclude: ["generated"],
      resources: [
        .embedInCode("io.systemd.MachineInstance.varlink"),
        .embedInCode("io.systemd.VirtualMachineInstance.varlink"),
        .embedInCode("io.systemd.QemuMachineInstance.varlink"),
        .embedInCode("io.qmpvarlink.Sessions.varlink"),
        .embedInCode("io.qmpvarlink.Monitors.varlink"),
      ]),
    .systemLibrary(name: "CSystemd", pkgConfig: "libsystemd"),

    .target(
      name: "TestSupport",
      dependencies: [
        "CSystemd", "QEMUJSON", "Simulator", "SystemdEvent", .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      path: "Tests/TestSupport"),
    .testTarget(name: "SystemdEventTests", dependencies: ["SystemdEvent", "TestSupport"]),
    .testTarget(
      name: "TerminalTests", dependencies: ["Terminal", "TestSupport", .product(name: "SystemPackage", package: "swift-system")]),
    .testTarget(name: "SystemdJSONTests", dependencies: ["SystemdJSON", "TestSupport"]),
    .testTarget(name: "SimulatorTests", dependencies: ["QEMUJSON", "Simulator", "qmp-simulator", "TestSupport"]),
    .testTarget(name: "QMPTests", dependencies: ["QMP", "TestSupport", .product(name: "SystemPackage", package: "swift-system")]),
    .testTarget(
      name: "QAPITests",
      dependencies: [
        "QAPI", "Varlink", "SystemdEvent", "SystemdJSON", "TestSupport", .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .testTarget(name: "RelayTests", dependencies: ["QEMUJSON", "Relay", "TestSupport"]),
    .testTarget(name: "VarlinkTests", dependencies: ["Varlink", "Interfaces", "TestSupport"]),
    .testTarget(name: "MachineTests", dependencies: ["Machine", "TestSupport"]),
    .testTarget(
      name: "ControlTests",
      dependencies: [
        "qmpctl", "Control", "Terminal", "SystemdEvent", "SystemdJSON", "TestSupport",
        .product(name: "SystemPackage", package: "swift-system"),
      ]),
    .testTarget(
      name: "DaemonTests",
      dependencies: ["qmp-varlinkd", "Bridge", "Interfaces", "QEMUJSON", "SystemdEvent", "SystemdJSON", "Varlink", "TestSupport"]),
    .testTarget(
      name: "IntegrationTests",
      dependencies: [
        "Bridge", "Machine", "QEMUJSON", "Relay", "Simulator", "Varlink", "TestSupport", "SystemdEvent", "SystemdJSON", "qmpctl",
        "varlink-example",
        .product(name: "Logging", package: "swift-log"), .product(name: "Subprocess", package: "swift-subprocess"),
        .product(name: "SystemPackage", package: "swift-system"),
      ],
      resources: [.copy("Clients")]),
  ],
  swiftLanguageModes: [.v6]
)

// The fuzz targets are tests as a rule (what is kept is run), and a program of libFuzzer's for `make fuzz`.
let fuzzDependencies: [Target.Dependency] = [
  "Bridge", "Interfaces", "Machine", "QAPI", "QEMUJSON", "QMP", "Relay", "Simulator", "SystemdEvent", "SystemdJSON", "TestSupport",
  "Varlink", "qmp-varlinkd", .product(name: "Logging", package: "swift-log"), .product(name: "SystemPackage", package: "swift-system"),
]
if Context.environment["QMP_VARLINK_FUZZ"] == nil {
  package.targets.append(
    .testTarget(name: "FuzzTests", dependencies: fuzzDependencies, exclude: ["Fuzzer.swift"], resources: [.copy("Corpus")]))
} else {
  // A program is linked into tests alone. Here it is as much of the daemon as reads files, as a library.
  package.products.removeAll { $0.name == "qmp-varlinkd" }
  package.targets.removeAll { $0.name == "qmp-varlinkd" }
  package.targets += [
    .target(
      name: "qmp-varlinkd", dependencies: ["SystemdEvent", .product(name: "SystemPackage", package: "swift-system")],
      sources: ["OptionsFile.swift"]),
    .systemLibrary(name: "CFuzzer", path: "Tests/CFuzzer"),
    .executableTarget(
      name: "fuzz", dependencies: fuzzDependencies + ["CFuzzer"], path: "Tests/FuzzTests", exclude: ["CorpusTests.swift", "Corpus"]),
  ]
}

// The same strict settings for every target that has Swift code.
for target in package.targets where target.type != .system {
  target.swiftSettings = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
    .enableUpcomingFeature("InferIsolatedConformances"),
    .treatAllWarnings(as: .error),
  ]
}
