import QMP
import SystemdEvent
import SystemdJSON

/// A network card on a network that QEMU plays itself.
@EventLoopActor
enum Network {
  static func attachment(option: String, forwards: [PortForward], bus: String?) -> DeviceAttachment {
    let rules = forwards.map { JSONVariant.object(["str": .string($0.rule)]) }
    // systemd-vmspawn's names.
    let (backend, device) = (JSONVariant.string("net0"), JSONVariant.string("nic0"))
    return DeviceAttachment(
      option: option,
      commands: [
        QMPCommand("netdev_add", .object(["type": .string("user"), "id": backend, "hostfwd": rules.isEmpty ? nil : .array(rules)])),
        QMPCommand(
          "device_add",
          .object(["driver": .string("virtio-net-pci"), "id": device, "netdev": backend, "bus": bus.map { .string($0) }])),
      ],
      refined: { desc in forwards.first { desc.contains($0.rule) }.map { "--forward=\($0.text)" } })
  }
}
