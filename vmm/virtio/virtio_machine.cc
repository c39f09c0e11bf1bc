#include "vmm/virtio/virtio_machine.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errno_status.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "devices/pci/pci_layout.h"
#include "devices/virtio/vsock/vsock_connector.h"
#include "memory/ram_mapping.h"
#include "vmm/virtio/device_options.h"

namespace vmm {

bool HasVirtioDevices(const VmConfig& config) noexcept {
  return !config.blocks.empty() || !config.nets.empty() || config.console.output != ConsoleOutput::kNone || config.rng.enabled ||
         !config.shares.empty() || !config.vsock.path.empty() || config.balloon.enabled;
}

absl::StatusOr<std::unique_ptr<VirtioMachine>> VirtioMachine::Create(const Environment& environment, const VmConfig& config,
                                                                     const std::string& executable) {
  std::unique_ptr<VirtioMachine> machine(new VirtioMachine(environment));
  PciRoot& root = machine->root_;
  RETURN_IF_ERROR(environment.ports.Add(pci::kConfigPorts, pci::kConfigPortCount, "PCI configuration", root.config_ports()));
  RETURN_IF_ERROR(environment.mmio.Add(kEcamBase.raw(), kEcamBytes, "PCI configuration", root.ecam()));
  RETURN_IF_ERROR(environment.mmio.Add(kPciWindow32.raw(), kPciWindow32Bytes, "PCI window", root.window()));
  // A device process belongs to the thread that started it, and so do those of devices that came before one that failed.
  absl::Status status;
  environment.loop.RunThere([&] {
    status = machine->AddDevices(environment, config, executable);
    if (!status.ok()) machine.reset();
  });
  RETURN_IF_ERROR(status);
  return machine;
}

VirtioMachine::VirtioMachine(const Environment& environment)
    : router_(environment.vm), root_(kPciWindow32, static_cast<uint32_t>(kPciWindow32Bytes)) {}

absl::Status VirtioMachine::AddDevices(const Environment& environment, const VmConfig& config, const std::string& executable) {
  if (!executable.empty()) {
    executable_.Reset(::open(executable.c_str(), O_RDONLY | O_CLOEXEC));
    if (!executable_.valid()) return ErrnoStatus(errno, absl::StrCat("open device executable '", executable, "'"));
  }
  ASSIGN_OR_RETURN(std::vector<VirtioDevice::Options> all, VirtioDeviceOptions(config, environment.interactive));
  if (all.empty() == HasVirtioDevices(config)) return absl::InternalError("tell whether the machine has virtio devices");
  if (environment.confined) RETURN_IF_ERROR(MakeSpawner(all));
  for (VirtioDevice::Options& options : all) {
    options.spawn.guest_bytes = 0;
    for (const DeviceRam& part : RamForDevices(*environment.ram.files(), environment.layout)) {
      options.frontend.memory.push_back({part.start, part.bytes, part.fd, part.fd_offset});
      options.spawn.guest_bytes += part.bytes;
    }
    if (options.control.valid()) {
      ASSIGN_OR_RETURN(balloon_, BalloonControl::Create(environment.loop.loop(), std::move(options.control), config.balloon.target_mib,
                                                        config.memory.bytes >> 20));
    }
    options.spawn.queues = options.frontend.queues;
    options.spawn.jail = config.sandbox;
    options.spawn.executable_fd = executable_.get();
    has_foreign_ids_ = has_foreign_ids_ || !options.spawn.companion.name.empty();
    if (options.spawn.kind == "vsock") {
      ASSIGN_OR_RETURN(VsockConnector connector, StartVsockConnector(config.vsock.path, config.sandbox, executable_.get()));
      options.helper = std::move(connector.process);
      options.fds.push_back(std::move(connector.device_end));
      options.fds.push_back(std::move(connector.before));
    }
    const VirtioDevice::Environment around{.loop = environment.loop.loop(),
                                           .memory = environment.memory,
                                           .router = router_,
                                           .doorbells = router_,
                                           .control = environment.control,
                                           .spawner = spawner_.get()};
    const absl::Time begin = absl::Now();
    ASSIGN_OR_RETURN(auto device, VirtioDevice::Create(around, std::move(options)));
    RETURN_IF_ERROR(root_.Add(device->function()).status());
    Log(LogLevel::kDebug, "vmm", absl::StrCat("started device '", device->name(), "' (pid ", device->pid(), ") in ",
                                              absl::ToInt64Microseconds(absl::Now() - begin), " us"));
    devices_.push_back(std::move(device));
  }
  return absl::OkStatus();
}

absl::Status VirtioMachine::MakeSpawner(const std::vector<VirtioDevice::Options>& devices) {
  const bool restarts = std::any_of(devices.begin(), devices.end(), [](const VirtioDevice::Options& options) {
    return options.on_failure == OnFailure::kRestart;
  });
  if (!restarts) return absl::OkStatus();
  ASSIGN_OR_RETURN(spawner_, Spawner::Create(executable_.get()));
  return absl::OkStatus();
}

absl::Status VirtioMachine::Seal() { return spawner_ != nullptr ? spawner_->Seal() : absl::OkStatus(); }

void VirtioMachine::Shutdown() {
  for (const auto& device : devices_) device->Shutdown();
}

}  // namespace vmm
