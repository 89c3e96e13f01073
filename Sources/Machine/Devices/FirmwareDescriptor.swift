import Glibc
import SystemPackage
import SystemdEvent
import SystemdJSON

/// A firmware as its descriptor has it (docs/interop/firmware.json of QEMU): as much of that as is needed to start with it.
struct FirmwareDescriptor: Equatable {
  /// The program, which nobody writes to.
  let executable: FilePath
  let executableFormat: ImageFormat
  /// What the variables are at first; nil for firmware that keeps none.
  let variables: FilePath?
  let features: Set<String>
  /// Architecture and patterns for machine types.
  let targets: [(architecture: String, machines: [String])]

  /// Whether the machine must have system management mode, and only that may write to the variables.
  var needsSMM: Bool { features.contains("requires-smm") }

  static func == (one: Self, other: Self) -> Bool {
    one.executable == other.executable && one.variables == other.variables && one.features == other.features
  }

  /// - Throws: what there is that cannot be used, in words.
  @EventLoopActor
  init(_ description: JSONVariant) throws(OptionValueError) {
    guard description["interface-types"]?.elements?.contains(where: { $0.string == "uefi" }) == true else {
      throw OptionValueError("it is not a UEFI")
    }
    guard let mapping = description["mapping"], let device = mapping["device"]?.string else { throw OptionValueError("it has no mapping") }
    guard device == "flash" else { throw OptionValueError("its mapping is '\(device)', and only 'flash' is supported") }
    let mode = mapping["mode"]?.string ?? "split"
    guard mode == "split" || mode == "stateless" else {
      throw OptionValueError("its mode is '\(mode)', and only 'split' and 'stateless' are supported")
    }
    guard let executable = mapping["executable"]?["filename"]?.string, !executable.isEmpty,
      let format = mapping["executable"]?["format"]?.string.flatMap(ImageFormat.init(rawValue:))
    else { throw OptionValueError("it has no executable that is raw or qcow2") }
    self.executable = FilePath(executable)
    executableFormat = format
    if mode == "split" {
      guard let template = mapping["nvram-template"], let file = template["filename"]?.string, !file.isEmpty,
        template["format"]?.string == "raw"
      else {
        throw OptionValueError("it has no template for variables that is raw")
      }
      variables = FilePath(file)
    } else {
      variables = nil
    }
    features = Set(description["features"]?.elements?.compactMap(\.string) ?? [])
    targets = (description["targets"]?.elements ?? []).compactMap { target in
      target["architecture"]?.string.map { ($0, target["machines"]?.elements?.compactMap(\.string) ?? []) }
    }
  }

  /// Whether it is for such a machine.
  func fits(architecture: String, machine: String) -> Bool {
    targets.contains { target in
      target.architecture == architecture
        && target.machines.contains { fnmatch($0, machine, 0) == 0 }
    }
  }

  /// Whether it fits the wish for Secure Boot. Without one, firmware with keys in it is not taken: it starts signed systems only.
  func fits(secureBoot: Bool?) -> Bool {
    switch secureBoot {
    case nil: !features.contains("enrolled-keys")
    case let wanted?: features.contains("secure-boot") == wanted
    }
  }
}

/// Where firmware is looked for.
enum FirmwareSearch {
  /// The folders, the most specific first: a descriptor hides those of the same name further behind, and an empty one means none.
  /// A variable without an absolute path counts as unset, as the XDG Base Directory Specification has it.
  static func folders(environment: (String) -> String? = { getenv($0).map { String(cString: $0) } }) -> [FilePath] {
    func folder(_ variable: String) -> String? { environment(variable).flatMap { $0.hasPrefix("/") ? $0 : nil } }
    let configuration = folder("XDG_CONFIG_HOME") ?? folder("HOME").map { $0 + "/.config" }
    return (configuration.map { [FilePath($0).appending("qemu/firmware")] } ?? []) + ["/etc/qemu/firmware", "/usr/share/qemu/firmware"]
  }

  /// All descriptors, in the order of their names.
  static func descriptors(in folders: [FilePath]) -> [FilePath] {
    var found: [String: FilePath] = [:]
    for folder in folders {
      guard let entries = folder.withPlatformString({ opendir($0) }) else { continue }
      defer { closedir(entries) }
      while let entry = readdir(entries) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: Int(NAME_MAX) + 1) { String(cString: $0) }
        }
        if name.hasSuffix(".json"), !name.hasPrefix("."), found[name] == nil { found[name] = folder.appending(name) }
      }
    }
    return found.sorted { $0.key < $1.key }.map(\.value)
  }

  /// The largest descriptor that is read, in bytes.
  private static let largestDescriptor = 1 << 20

  /// Reads one descriptor.
  @EventLoopActor
  static func read(_ path: FilePath) throws(OptionValueError) -> FirmwareDescriptor {
    let text: String
    do throws(SystemdError) {
      text = String(decoding: try OpenFile.contents(of: path, atMost: largestDescriptor), as: UTF8.self)
    } catch {
      throw OptionValueError("\(error)")
    }
    let description: JSONVariant
    do throws(JSONError) {
      description = try JSONVariant(parsing: text)
    } catch {
      throw OptionValueError("\(path) is no firmware descriptor: \(error)")
    }
    return try FirmwareDescriptor(description)
  }

  /// Reads one that the user has chosen, for a machine that it is made for.
  @EventLoopActor
  static func read(_ path: FilePath, architecture: String = usualArchitecture, machine: String) throws(OptionValueError)
    -> FirmwareDescriptor
  {
    let descriptor = try read(path)
    guard descriptor.fits(architecture: architecture, machine: machine) else {
      throw OptionValueError("it is not for a machine '\(machine)' (\(architecture)), by its targets")
    }
    return descriptor
  }

  /// The first UEFI that fits.
  @EventLoopActor
  static func firstUEFI(
    secureBoot: Bool?, architecture: String = usualArchitecture, machine: String = usualMachine, in folders: [FilePath] = folders()
  ) throws(OptionValueError) -> FirmwareDescriptor {
    for path in descriptors(in: folders) {
      guard let descriptor = try? read(path), descriptor.fits(architecture: architecture, machine: machine),
        descriptor.fits(secureBoot: secureBoot)
      else { continue }
      return descriptor
    }
    let target = machine == usualMachine ? "" : " for a machine '\(machine)'"
    let kind = secureBoot.map { $0 ? " with Secure Boot" : " without Secure Boot" } ?? ""
    throw OptionValueError(
      "no UEFI firmware\(kind)\(target) is described in \(folders.map(\.string).joined(separator: ", ")): install the package 'ovmf' or 'ovmf-generic' (Debian, Ubuntu) or 'edk2-ovmf' (Fedora, Arch)"
    )
  }

  static let usualArchitecture = "x86_64"

  /// What a QEMU plays, by the name of its program.
  static func architecture(ofQEMU program: String) -> String {
    let prefix = "qemu-system-"
    let name = FilePath(program).lastComponent?.string ?? ""
    return name.hasPrefix(prefix) ? String(name.dropFirst(prefix.count)) : usualArchitecture
  }

  /// A q35 of some version. Descriptors have patterns for all versions.
  static let usualMachine = "pc-q35-11.1"

  /// A machine type as descriptors have it, of some version where the user has named none.
  static func machine(_ type: String?) -> String {
    switch type {
    case nil, "q35": usualMachine
    case "pc": "pc-i440fx-11.1"
    case "virt": "virt-11.1"
    case let type?: type
    }
  }
}
