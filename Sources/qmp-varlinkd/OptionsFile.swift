import Glibc
import SystemPackage
import SystemdEvent

/// A file with options of the command line, one a line, for service units: no shell reads it, so nothing needs quotes.
struct OptionsFile: Equatable {
  /// As the parser takes them: `--name` or `--name=value`.
  private(set) var options: [String] = []
  /// What was behind a line `--`.
  private(set) var qemuArguments: [String] = []

  /// Why a file cannot be used.
  struct Failure: Error, CustomStringConvertible { let description: String }

  /// No file with a hundred options comes near.
  private static let largest = 64 << 10
  private static let name = "--config"

  /// Puts the file's options in place of `--config FILE`, and its arguments for QEMU in front of the command line's own.
  ///
  /// - Returns: the words, and the file that was read, if one was.
  static func expand(_ words: [String]) throws(Failure) -> (words: [String], file: String?) {
    let separator = words.firstIndex(of: "--") ?? words.endIndex
    guard let index = words[..<separator].firstIndex(where: { $0 == name || $0.hasPrefix(name + "=") }) else { return (words, nil) }
    var file = String(words[index].dropFirst(name.count + 1))
    var next = index + 1
    if words[index] == name {
      // That there is no value, the parser says.
      guard next < separator else { return (words, nil) }
      file = words[next]
      next += 1
    }
    guard !words[next..<separator].contains(where: { $0 == name || $0.hasPrefix(name + "=") }) else {
      throw Failure(description: "\(name) can be given once.")
    }
    let read = try OptionsFile(parsing: text(of: FilePath(file)), of: file)
    var result = words[..<index] + read.options + words[next..<separator]
    if separator < words.endIndex || !read.qemuArguments.isEmpty { result += ["--"] + read.qemuArguments + words[separator...].dropFirst() }
    return (Array(result), file)
  }

  /// - Parameter file: its name, for what is wrong with it.
  init(parsing text: String, of file: String) throws(Failure) {
    var isForQEMU = false
    for (number, line) in text.split(omittingEmptySubsequences: false, whereSeparator: { $0 == "\n" || $0 == "\r\n" }).enumerated() {
      let line = line.trimming
      if line.isEmpty || line.hasPrefix("#") { continue }
      func refuse(_ why: String) -> Failure { Failure(description: "\(file):\(number + 1): \(why)") }
      guard !line.unicodeScalars.contains("\0") else { throw refuse("a line cannot have a NUL byte") }
      if isForQEMU {
        qemuArguments.append(String(line))
      } else if line == "--" {
        isForQEMU = true
      } else {
        guard line.hasPrefix("-") else { throw refuse("'\(line)' is no option: they begin with dashes, as on the command line") }
        let name = line.prefix { $0 != "=" && !$0.isBlank }
        guard name != Self.name else { throw refuse("\(Self.name) cannot be in a file") }
        let value = line.dropFirst(name.count)
        // Short ones have no '=' between them and their value.
        switch (value.first, name.hasPrefix("--")) {
        case (nil, _): options.append(String(name))
        case ("=", true): options.append(String(line))
        case ("=", false): throw refuse("'\(line)': behind a short option there is a blank")
        case (_, true): options.append("\(name)=\(value.trimming)")
        case (_, false):
          // It would be an option of its own, and not even looked at here.
          guard value.trimming.utf8.first != UInt8(ascii: "-") else {
            throw refuse("'\(line)': no value of a short option begins with a dash")
          }
          options += [String(name), String(value.trimming)]
        }
      }
    }
  }

  private static func text(of file: FilePath) throws(Failure) -> String {
    func failure(_ call: String) -> Failure { Failure(description: "\(SystemdError.last("\(call) \(file)"))") }
    let raw = file.withPlatformString { open($0, O_RDONLY | O_CLOEXEC) }
    guard raw >= 0 else { throw failure("cannot open") }
    let descriptor = OwnedDescriptor(owning: raw)
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 4096)
    while true {
      let count = read(descriptor.raw, &buffer, buffer.count)
      guard count >= 0 else { throw failure("cannot read") }
      if count == 0 { break }
      bytes += buffer[..<count]
      guard bytes.count <= largest else { throw Failure(description: "\(file) has more than \(largest >> 10) KiB") }
    }
    guard let text = String(validating: bytes, as: UTF8.self) else { throw Failure(description: "\(file) is not UTF-8") }
    return text
  }
}

extension Substring {
  /// Without the blanks at both ends.
  fileprivate var trimming: Substring {
    let start = drop { $0.isBlank }
    guard let last = start.lastIndex(where: { !$0.isBlank }) else { return "" }
    return start[...last]
  }
}

extension Character {
  fileprivate var isBlank: Bool { self == " " || self == "\t" }
}
