#include "vmm/machine/trapped_devices.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errno_status.h"
#include "base/event_fd.h"
#include "base/log.h"
#include "base/owned_fd.h"
#include "base/status_macros.h"
#include "devices/platform/rtc/cmos_layout.h"
#include "devices/platform/serial_device.h"

namespace vmm {
namespace {

constexpr uint16_t kSerialPort = 0x3f8;
constexpr uint16_t kSerialPorts = 8;
constexpr uint32_t kSerialGsi = 4;

}  // namespace

// Kept until the processes have been started.
struct TrappedDevices::Files {
  OwnedFd executable;
  EventFd interrupt;
  OwnedFd output;
  SerialDeviceOptions serial;
};

bool HasRtc(const VmConfig& config) { return config.hyperv.enabled || config.machine == MachineKind::kTest; }

absl::StatusOr<std::unique_ptr<TrappedDevices>> TrappedDevices::Begin(const VmConfig& config, Environment environment) {
  std::unique_ptr<TrappedDevices> devices(new TrappedDevices(config, std::move(environment)));
  ASSIGN_OR_RETURN(const std::shared_ptr<Files> files, devices->OpenFiles());
  devices->environment_.loop.Post([raw = devices.get(), files] {
    raw->start_status_ = raw->Start(*files);
    raw->started_.Notify();
  });
  return devices;
}

absl::StatusOr<std::shared_ptr<TrappedDevices::Files>> TrappedDevices::OpenFiles() {
  ASSIGN_OR_RETURN(EventFd interrupt, EventFd::Create());
  auto files = std::make_shared<Files>(Files{.interrupt = std::move(interrupt)});
  if (!environment_.device_executable.empty()) {
    files->executable = OwnedFd(::open(environment_.device_executable.c_str(), O_RDONLY | O_CLOEXEC));
    if (!files->executable.valid()) {
      return ErrnoStatus(errno, absl::StrCat("open device executable '", environment_.device_executable, "'"));
    }
  }
  if (!config_.serial.enabled) return files;
  RETURN_IF_ERROR(environment_.vm.AddIrqFd(files->interrupt.fd(), kSerialGsi));
  SerialDeviceOptions& serial = files->serial;
  serial = {.executable_fd = files->executable.get(), .interrupt_fd = files->interrupt.fd(), .jail = config_.sandbox};
  switch (config_.serial.output) {
    case SerialOutput::kStdio:
      serial.output_fd = STDOUT_FILENO;
      serial.input_fd = STDIN_FILENO;
      serial.interactive = environment_.interactive;
      return files;
    case SerialOutput::kFile:
      // From its start, as the schema says. O_NONBLOCK: a FIFO without a reader is an error, not a wait.
      files->output = OwnedFd(::open(config_.serial.path.c_str(),
                                     O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600));
      break;
    case SerialOutput::kNull:
      files->output = OwnedFd(::open("/dev/null", O_WRONLY | O_CLOEXEC));
      break;
  }
  if (!files->output.valid()) return ErrnoStatus(errno, absl::StrCat("open serial output '", config_.serial.path, "'"));
  serial.output_fd = files->output.get();
  return files;
}

TrappedDeviceCallbacks TrappedDevices::CallbacksOf(Device& device) {
  return {.on_failed =
              [this, &device](const std::string& message) {
                device.failed = true;
                environment_.on_failed(device.on_failure, message);
              },
          .on_quit = environment_.on_quit};
}

absl::Status TrappedDevices::Start(const Files& files) {
  if (config_.serial.enabled) {
    Device& serial = *devices_.emplace_back(std::make_unique<Device>(Device{
        .name = "serial", .port = kSerialPort, .ports = kSerialPorts, .on_failure = config_.serial.on_failure, .process = nullptr}));
    ASSIGN_OR_RETURN(serial.process, LaunchSerialDevice(environment_.loop, files.serial, CallbacksOf(serial)));
  }
  if (HasRtc(config_)) {
    // A guest that has lost its only clock cannot go on as if nothing had happened.
    Device& rtc = *devices_.emplace_back(std::make_unique<Device>(Device{
        .name = "rtc", .port = kCmosPort, .ports = kCmosPorts, .on_failure = OnFailure::kStop, .process = nullptr}));
    TrappedDeviceOptions options;
    options.request.name = "rtc";
    options.request.executable_fd = files.executable.get();
    options.request.jail = config_.sandbox;
    TrappedDeviceCallbacks callbacks = CallbacksOf(rtc);
    callbacks.on_quit = nullptr;
    ASSIGN_OR_RETURN(rtc.process, TrappedDevice::Launch(environment_.loop, std::move(options), std::move(callbacks)));
  }
  // Not before all are on their way: their starts overlap.
  for (const auto& device : devices_) RETURN_IF_ERROR(device->process->AwaitReady());
  return absl::OkStatus();
}

absl::Status TrappedDevices::Finish() {
  started_.Wait();
  RETURN_IF_ERROR(start_status_);
  for (const auto& device : devices_) {
    Log(LogLevel::kDebug, "vmm", absl::StrCat("started device '", device->name, "' (pid ", device->process->pid(), ")"));
    RETURN_IF_ERROR(environment_.ports.Add(device->port, device->ports, device->name, device->process->device()));
  }
  return absl::OkStatus();
}

void TrappedDevices::Shutdown() {
  for (const auto& device : devices_) {
    if (device->process == nullptr) continue;
    const auto ended = device->process->Shutdown();
    const bool orderly = ended.ok() && (ended->how == ExitStatus::How::kUnknown ||
                                        (ended->how == ExitStatus::How::kExited && ended->value == 0));
    if (ended.ok() && !orderly && !device->failed) {
      Log(LogLevel::kWarning, "vmm", absl::StrCat("device '", device->name, "' ", ended->Describe(), " when it was to end"));
    }
  }
}

}  // namespace vmm
