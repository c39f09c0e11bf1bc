// The monitor as a library: a program of its own that makes a machine, watches its console and ends it.
//
//   embed FOLDER [MARKER]
//
// FOLDER holds `vmlinux` and `initramfs.cpio` (bazel-bin/examples/linux/guest). The guest's console is copied to standard
// output; once it has said MARKER, or where none is given when the guest ends by itself, the machine is over.
// Exit statuses: those of `vmm help exit-status`.

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "vmm/cli/exit_status.h"
#include "vmm/config/config.pb.h"
#include "vmm/config/validate.h"
#include "vmm/microvm.h"

namespace {

// The configuration that `vmm run` would read from a file, as a message.
vmm::config::VmConfig MakeConfig(const std::string& folder, int console_fd) {
  vmm::config::VmConfig config;
  config.set_name("embedded");
  config.mutable_memory()->set_size_mib(256);
  config.mutable_boot()->set_kernel(folder + "/vmlinux");
  config.mutable_boot()->set_initramfs(folder + "/initramfs.cpio");
  config.mutable_boot()->set_command_line("console=ttyS0 quiet panic=-1");
  // Any path that can be opened for writing: here the end of a pipe. A library's guest has no business with our terminal.
  auto* serial = config.mutable_devices()->mutable_serial();
  serial->set_output(vmm::config::Serial::FILE);
  serial->set_path("/proc/self/fd/" + std::to_string(console_fd));
  return config;
}

// Copies the console to standard output until its end, and ends the machine when `marker` has come by.
void FollowConsole(int fd, const std::string& marker, vmm::MicroVm& vm) {
  std::string tail;
  char buffer[4096];
  ssize_t got;
  while ((got = ::read(fd, buffer, sizeof(buffer))) > 0) {
    std::fwrite(buffer, 1, static_cast<size_t>(got), stdout);
    std::fflush(stdout);
    if (marker.empty()) continue;
    tail.append(buffer, static_cast<size_t>(got));
    if (tail.find(marker) != std::string::npos) vm.Stop();  // any thread, as often as one likes
    if (tail.size() > marker.size()) tail.erase(0, tail.size() - marker.size());
  }
}

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "embed: %s\n", std::string(status.message()).c_str());
  return vmm::ExitStatusOf(status);
}

int Run(const std::string& folder, const std::string& marker) {
  int console[2];
  if (::pipe2(console, O_CLOEXEC) != 0) return Fail(absl::ErrnoToStatus(errno, "create pipe"));

  // Everything wrong with a configuration, a line each, before anything is started.
  const absl::StatusOr<vmm::VmConfig> config = vmm::ValidateConfig(MakeConfig(folder, console[1]), /*base_dir=*/"");
  if (!config.ok()) {
    Fail(config.status());
    return static_cast<int>(vmm::ExitCode::kConfigRefused);
  }

  vmm::MicroVm::Options options;
  // On the library's event-loop thread: take note and return.
  options.on_end = [](const vmm::EndReport& report) { std::fprintf(stderr, "embed: on_end: %s\n", report.detail.c_str()); };
  absl::StatusOr<std::unique_ptr<vmm::MicroVm>> vm = vmm::MicroVm::Create(*config, std::move(options));
  if (!vm.ok()) return Fail(vm.status());
  // The serial process has the other end now: when it goes, the console has its end.
  ::close(console[1]);

  if (const absl::Status started = (*vm)->Start(); !started.ok()) return Fail(started);
  std::thread follower(FollowConsole, console[0], marker, std::ref(**vm));
  const vmm::EndReport report = (*vm)->Wait();
  follower.join();
  ::close(console[0]);

  uint64_t exits = 0;
  for (const auto& processor : (*vm)->stats().processors) exits += processor.pio_exits + processor.mmio_exits;
  std::fprintf(stderr, "embed: ended: %s, after %llu exits for devices\n", report.detail.c_str(),
               static_cast<unsigned long long>(exits));
  return vmm::ExitStatusOf(report.end, report.value);
}

}  // namespace

int main(int argc, char** argv) {
  // First of all: the library starts this very program again, in a jail, for each device process.
  if (int exit_code = 0; vmm::RunDeviceProcess(argc, argv, exit_code)) return exit_code;
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: embed FOLDER [MARKER]\n");
    return static_cast<int>(vmm::ExitCode::kUsage);
  }
  return Run(argv[1], argc == 3 ? argv[2] : "");
}
