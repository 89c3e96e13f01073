/// The texts of the interfaces that this project serves, one property each.
public enum Interfaces {
  /// `io.systemd.MachineInstance`
  public static var machineInstance: String { text(PackageResources.io_systemd_MachineInstance_varlink) }
  /// `io.systemd.VirtualMachineInstance`
  public static var virtualMachineInstance: String { text(PackageResources.io_systemd_VirtualMachineInstance_varlink) }
  /// `io.systemd.QemuMachineInstance`
  public static var qemuMachineInstance: String { text(PackageResources.io_systemd_QemuMachineInstance_varlink) }
  /// `io.qmpvarlink.Sessions`
  public static var sessions: String { text(PackageResources.io_qmpvarlink_Sessions_varlink) }
  /// `io.qmpvarlink.Monitors`
  public static var monitors: String { text(PackageResources.io_qmpvarlink_Monitors_varlink) }

  private static func text(_ bytes: [UInt8]) -> String { String(decoding: bytes, as: UTF8.self) }
}
