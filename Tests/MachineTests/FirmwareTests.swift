import SystemPackage
import SystemdEvent
import SystemdJSON
import TestSupport
import Testing

@testable import Machine

@Suite(.onEventLoop) struct FirmwareTests {
  /// A descriptor, with one thing about it changed.
  static func descriptor(_ change: (String, String)? = nil) -> String {
    let text = #"""
      {"description": "x", "interface-types": ["uefi"], "mapping": {"device": "flash", "mode": "split",
       "executable": {"filename": "/f/CODE", "format": "raw"}, "nvram-template": {"filename": "/f/VARS", "format": "raw"}},
       "targets": [{"architecture": "x86_64", "machines": ["pc-i440fx-*", "pc-q35-*"]}], "features": ["acpi-s3"], "tags": []}
      """#
    return change.map { text.replacing($0.0, with: $0.1) } ?? text
  }

  @Test("a descriptor names its files") @EventLoopActor
  func files() throws {
    let descriptor = try FirmwareDescriptor(JSONVariant(parsing: Self.descriptor()))
    #expect(descriptor.executable == "/f/CODE" && descriptor.executableFormat == .raw && descriptor.variables == "/f/VARS")
    #expect(descriptor.fits(architecture: "x86_64", machine: FirmwareSearch.usualMachine))
    #expect(!descriptor.fits(architecture: "aarch64", machine: FirmwareSearch.usualMachine))
    #expect(!descriptor.fits(architecture: "x86_64", machine: "virt-11.1"))
    #expect(descriptor.fits(secureBoot: nil) && descriptor.fits(secureBoot: false) && !descriptor.fits(secureBoot: true))
    let stateless = try FirmwareDescriptor(JSONVariant(parsing: Self.descriptor(("split", "stateless"))))
    #expect(stateless.variables == nil)
  }

  @Test(
    "what cannot be used is told",
    arguments: [
      ("uefi", "bios", "it is not a UEFI"), ("flash", "memory", "its mapping is 'memory'"), ("split", "combined", "its mode is 'combined'"),
      (#""format": "raw"}, "nvram"#, #""format": "vmdk"}, "nvram"#, "no executable"), ("mapping", "gap", "it has no mapping"),
      ("nvram-template", "other", "no template"), ("/f/CODE", "", "no executable"), ("/f/VARS", "", "no template"),
    ])
  @EventLoopActor
  func unusable(from: String, to: String, reason: String) {
    #expect { try FirmwareDescriptor(JSONVariant(parsing: Self.descriptor((from, to)))) } throws: { "\($0)".contains(reason) }
  }

  @Test("the first that fits is taken; a more specific folder comes first, and hides") @EventLoopActor
  func search() throws {
    let general = try TemporaryFolder()
    let specific = try TemporaryFolder()
    let folders = [specific.path, general.path, "/nonexistent"]
    #expect { try FirmwareSearch.firstUEFI(secureBoot: nil, in: folders) } throws: {
      "\($0)".contains("install the package 'ovmf' or 'ovmf-generic'") && "\($0)".contains(general.path.string)
    }
    func put(_ folder: TemporaryFolder, _ name: String, _ code: String, features: String = "[]") throws {
      try folder.file(
        name, Self.descriptor(("/f/CODE", code)).replacing(#"["acpi-s3"]"#, with: features).utf8)
    }
    try put(general, "40-keys.json", "/keys", features: #"["secure-boot", "enrolled-keys", "requires-smm"]"#)
    try put(general, "50-secure.json", "/secure", features: #"["secure-boot", "requires-smm"]"#)
    try put(general, "60-plain.json", "/plain")
    try general.file("10-broken.json", "{".utf8)
    try general.file("20-not.txt", Self.descriptor().utf8)
    func chosen(_ secureBoot: Bool?) throws -> FilePath { try FirmwareSearch.firstUEFI(secureBoot: secureBoot, in: folders).executable }
    #expect(try chosen(nil) == "/secure")
    #expect(try chosen(true) == "/keys")
    #expect(try chosen(false) == "/plain")
    #expect(try FirmwareSearch.firstUEFI(secureBoot: nil, in: folders).needsSMM)
    try put(specific, "90-mine.json", "/mine")
    try specific.file("50-secure.json", "".utf8)
    #expect(try chosen(nil) == "/plain")
    try put(specific, "60-plain.json", "/own plain")
    #expect(try chosen(nil) == "/own plain")
  }

  @Test("firmware is for the machine that the user's arguments choose, also one that is chosen by its path") @EventLoopActor
  func machines() throws {
    let folder = try TemporaryFolder()
    let path = try folder.file("10-q35.json", Self.descriptor((#""pc-i440fx-*", "#, "")).utf8)
    let usual = FirmwareSearch.machine(nil)
    #expect(try FirmwareSearch.firstUEFI(secureBoot: nil, machine: usual, in: [folder.path]).executable == "/f/CODE")
    #expect(try FirmwareSearch.read(path, machine: "pc-q35-9.0").executable == "/f/CODE")
    let other = FirmwareSearch.machine(StartPorts.machineType(["-M", "pc,smm=off"]))
    #expect { try FirmwareSearch.firstUEFI(secureBoot: nil, machine: other, in: [folder.path]) } throws: {
      "\($0)".hasPrefix("no UEFI firmware for a machine 'pc-i440fx-11.1' is described")
    }
    #expect { try FirmwareSearch.read(path, machine: other) } throws: { "\($0)".hasPrefix("it is not for a machine 'pc-i440fx-11.1'") }
    #expect { try FirmwareSearch.read(path, architecture: "aarch64", machine: usual) } throws: { "\($0)".contains("(aarch64)") }
    let names = ["qemu-system-x86_64", "/usr/bin/qemu-system-aarch64", "qemu-kvm"]
    #expect(names.map(FirmwareSearch.architecture(ofQEMU:)) == ["x86_64", "aarch64", "x86_64"])
    try folder.file("20-both.json", Self.descriptor(("/f/CODE", "/both")).utf8)
    #expect(try FirmwareSearch.firstUEFI(secureBoot: nil, machine: other, in: [folder.path]).executable == "/both")
  }

  @Test(
    "the machine type in the user's arguments",
    arguments: [
      ([], nil), (["-machine", "q35,smm=on"], "q35"), (["-M", "smm=off,type=pc"], "pc"), (["-M", "smm=off"], "pc"),
      (["--machine", "q35", "-M", "none"], "none"), (["-machine"], nil),
    ] as [([String], String?)])
  func machineType(arguments: [String], type: String?) { #expect(StartPorts.machineType(arguments) == type) }

  @Test("where descriptors are")
  func folders() {
    let system: [FilePath] = ["/etc/qemu/firmware", "/usr/share/qemu/firmware"]
    #expect(FirmwareSearch.folders { _ in nil } == system)
    #expect(FirmwareSearch.folders { $0 == "HOME" ? "/h" : nil } == ["/h/.config/qemu/firmware"] + system)
    #expect(FirmwareSearch.folders { $0 == "XDG_CONFIG_HOME" ? "/c" : "/h" } == ["/c/qemu/firmware"] + system)
    // The working directory is no place for firmware.
    for value in ["", "c", "./c"] {
      #expect(FirmwareSearch.folders { $0 == "XDG_CONFIG_HOME" ? value : "/h" } == ["/h/.config/qemu/firmware"] + system)
      #expect(FirmwareSearch.folders { _ in value } == system)
    }
  }
}
