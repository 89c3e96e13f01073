import SystemPackage

@testable import Machine
@testable import qmp_varlinkd

/// Any file of options is refused with a line that it has, or says the same when it is written again; and what an option's value becomes
/// can be told to QEMU, the guest and the log.
enum OptionsTarget {
  static func run(_ bytes: [UInt8]) throws {
    guard let text = String(validating: bytes, as: UTF8.self) else { return }
    let file: OptionsFile
    do throws(OptionsFile.Failure) { file = try OptionsFile(parsing: text, of: "f") } catch {
      let lines = bytes.count { $0 == UInt8(ascii: "\n") } + 1
      let number = error.description.dropFirst("f:".count).prefix { $0 != ":" }
      return try demand(error.description.hasPrefix("f:") && Int(number).map { (1...lines).contains($0) } == true, "\(error)")
    }
    try checkWords(file)
    for option in file.options { try checkValue(String(option.drop { $0 != "=" }.dropFirst())) }
  }

  private static func checkWords(_ file: OptionsFile) throws {
    try demand(file.options.first?.hasPrefix("-") != false, "a value stands first: \(file.options)")
    try demand(!file.options.contains { $0 == "--config" || $0.hasPrefix("--config=") }, "a file names another: \(file.options)")
    // A short option and its value are two words, of which the second may look like another option.
    guard !file.options.contains(where: { $0.hasPrefix("-") && !$0.hasPrefix("--") }) else { return }
    let again: OptionsFile
    let lines = file.options + ["--"] + file.qemuArguments
    do { again = try OptionsFile(parsing: lines.map { $0 + "\r\n" }.joined(), of: "f") } catch {
      throw Violation(description: "\(lines) is not read again: \(error)")
    }
    try demand(again == file, "\(file) is read again as \(again)")
  }

  private static func checkValue(_ text: String) throws {
    if let size = try? MemorySize(parsing: text) {
      try demand(size.size >= 1 << 20 && size.maximum.map { $0 >= size.size } != false, "\(text) is \(size)")
      try demand(!size.qemuValue.contains(" "), size.qemuValue)
    }
    if let forward = try? PortForward(parsing: text) {
      // It stands in an option of QEMU's, between commas.
      try demand(forward.rule.utf8.allSatisfy { $0.isLowerOrDigit || ".:-".utf8.contains($0) }, forward.rule)
    }
    if let drive = try? ExtraDrive(parsing: text) { try demand(!drive.path.isEmpty, "\(drive)") }
    if let mount = try? BindMount(parsing: text, isReadOnly: true) {
      let line = Array(mount.mountLine(tag: "t").utf8)
      let blanks = line.count { [UInt8(ascii: " "), UInt8(ascii: "\t"), UInt8(ascii: "\n")].contains($0) }
      try demand(blanks == 4 && line.last == UInt8(ascii: "\n"), "\(text) makes the line \(readable(line))")
    }
    if let credential = try? Credential(literal: text, option: "--o"), case .value(let value) = credential.source {
      try demand(credential.option == "--o=\(credential.name):…" && value.count <= text.utf8.count, "\(credential)")
      let string = Credential.smbiosString(credential.name, value)
      try demand(string.utf8.allSatisfy { (0x21..<0x7F).contains($0) }, string)
    }
    if let credential = try? Credential(file: text, option: "--o", environment: { _ in "/c" }), case .file(let path) = credential.source {
      try demand(!path.isEmpty && !credential.name.utf8.contains(UInt8(ascii: "/")), "\(credential)")
    }
    if let uuid = try? MachineUUID(parsing: text) {
      let again = try? MachineUUID(parsing: uuid.description)
      try demand(again == uuid, "\(text) is \(uuid), and that is \(again?.description ?? "none")")
    }
    if let name = MachineName(text) { try demand(!"\(name)".utf8.contains(UInt8(ascii: "/")), "\(name)") }
    _ = try? Firmware(parsing: text)
    _ = Tristate(parsing: text)
  }
}

extension UInt8 {
  fileprivate var isLowerOrDigit: Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(self) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(self)
  }
}
