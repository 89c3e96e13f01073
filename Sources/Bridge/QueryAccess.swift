import SystemdEvent
import SystemdJSON

/// Which QMP commands a session with `query` access may run: those that cannot change the virtual machine.
///
/// A list, reviewed command by command, and not the prefix `query-`: what a future QEMU adds is refused until somebody has
/// looked at it. A test holds the list against the schema of the QEMU at hand.
enum QueryAccess {
  /// Read by name; see ``refusedQueries`` for what looks alike and is not here.
  static let permitted: Set<String> = [
    // The session's own beginning.
    "qmp_capabilities",
    // The machine and its run state.
    "query-name", "query-status", "query-uuid", "query-version", "query-target", "query-kvm", "query-accelerators",
    "query-current-machine", "query-machines", "query-commands", "query-command-line-options", "query-qmp-schema",
    "query-acpi-ospm-status", "query-vm-generation-id", "query-replay", "query-yank", "query-firmware-log",
    // Processors and memory.
    "query-cpus-fast", "query-cpu-definitions", "query-cpu-model-baseline", "query-cpu-model-comparison",
    "query-cpu-model-expansion", "query-hotpluggable-cpus", "query-s390x-cpu-polarization", "query-balloon",
    "query-hv-balloon-status-report", "query-memdev", "query-memory-devices", "query-memory-size-summary", "query-iothreads",
    "query-gic-capabilities", "query-dirty-rate", "query-vcpu-dirty-limit", "query-dump", "query-dump-guest-memory-capability",
    // Block devices and jobs.
    "query-block", "query-blockstats", "query-block-jobs", "query-block-exports", "query-jobs", "query-named-block-nodes",
    "query-pr-managers", "x-debug-query-block-graph", "x-debug-block-dirty-bitmap-sha256",
    // Devices.
    "query-pci", "query-chardev", "query-chardev-backends", "query-audiodevs", "query-cryptodev", "query-mice", "query-rocker",
    "query-rocker-ports", "query-rocker-of-dpa-flows", "query-rocker-of-dpa-groups", "query-tpm", "query-tpm-models",
    "query-tpm-types", "query-spice", "query-vnc", "query-vnc-servers", "query-display-options", "query-fdsets",
    "query-sev", "query-sev-capabilities", "query-sgx", "query-sgx-capabilities", "xen-event-list",
    "query-xen-replication-status", "query-colo-status",
    // Migration and statistics.
    "query-migrate", "query-migrate-capabilities", "query-migrate-parameters", "query-stats", "query-stats-schemas",
    "trace-event-get-state", "x-accel-stats",
    // The inner state, in words.
    "x-query-interrupt-controllers", "x-query-irq", "x-query-jit", "x-query-numa", "x-query-ramblock", "x-query-roms",
    "x-query-usb", "x-query-virtio", "x-query-virtio-queue-element", "x-query-virtio-queue-status", "x-query-virtio-status",
    "x-query-virtio-vhost-queue-status",
    // The object tree: what there is and of what kind, but not its values.
    "qom-list", "qom-list-types", "qom-list-properties", "device-list-properties",
  ]

  /// What sounds like a question and is refused, with the reason.
  static let refusedQueries: [String: String] = [
    "query-rx-filter": "it rearms the event NIC_RX_FILTER_CHANGED, which others wait for",
    "query-sev-attestation-report": "it has the security processor sign what the caller gave it",
    "query-sev-launch-measure": "it is part of the launch protocol of the guest's owner",
    "qom-get": "it reads any property, the secrets of secret objects included",
    "qom-list-get": "it reads any property, the secrets of secret objects included",
    "ringbuf-read": "it takes what it reads",
  ]

  /// Why a command is refused; nil permits it.
  @EventLoopActor static func refusal(_ command: JSONVariant) -> String? {
    if let name = command["execute"]?.string {
      if permitted.contains(name) { return nil }
      let reason = refusedQueries[name].map { ": \($0)" } ?? ""
      return "The command \(name) is not permitted on a session with query access\(reason)"
    }
    if command["exec-oob"] != nil { return "Out-of-band commands are not permitted on a session with query access" }
    // Not a command at all: QEMU says so best.
    return nil
  }
}
