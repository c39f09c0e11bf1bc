// A processor's thread under its filter, on a real KVM: it runs a guest, and a device that opens a file ends the process with a line that
// names the thread and the call. The device is this test's: nothing in the product opens a file there.
// In forked children, whose ends are looked at; one that was not stopped exits with 99.
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/owned_fd.h"
#include "devices/io_bus.h"
#include "devices/io_device.h"
#include "devices/machine_control.h"
#include "kvm/system.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "memory/ram_mapping.h"
#include "sandbox/jail_options.h"
#include "vcpu/virtual_processor.h"
#include "vmm/confine/confine_monitor.h"

namespace vmm {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint64_t kRamBytes = 1 << 20;

// Writing 1 opens a file, anything else is only taken note of.
class OpeningPort final : public IoDevice {
 public:
  void Read(uint64_t, std::span<std::byte>) noexcept override {}
  void Write(uint64_t, std::span<const std::byte> data) noexcept override {
    if (data[0] == std::byte{1}) (void)!::open("/etc/passwd", O_RDONLY);
  }
};

class WaitingControl final : public MachineControl {
 public:
  void RequestEnd(MachineEnd end, absl::string_view) noexcept override {
    reason = end;
    if (!ended.HasBeenNotified()) ended.Notify();
  }
  absl::Notification ended;
  MachineEnd reason = MachineEnd::kInternalError;
};

// Runs `code`, 32-bit flat at 0x1000, until it ends its machine. What is wrong: exit codes from 90 on.
void RunConfined(std::vector<uint8_t> code) {
  auto system = kvm::System::Open();
  if (!system.ok()) ::_exit(90);
  auto vm = (*system)->CreateVm();
  const auto layout = MemoryLayout::Create(kRamBytes);
  const auto ram = GuestRam::Create({.bytes = kRamBytes});
  if (!vm.ok() || !layout.ok() || !ram.ok()) ::_exit(91);
  auto memory = GuestMemory::Create(**ram, *layout);
  if (!memory.ok() || !(*memory)->Write(Gpa(0x1000), std::as_bytes(std::span(code)))) ::_exit(92);
  const RamMapping& mapping = (*memory)->UnsafeMappings()[0];
  if (!(*vm)->SetMemorySlot(0, mapping.range.start, mapping.host, mapping.range.bytes).ok()) ::_exit(93);
  auto vcpu = (*vm)->CreateVcpu(0);
  if (!vcpu.ok()) ::_exit(94);
  auto sregs = (*vcpu)->GetSregs();
  if (!sregs.ok()) ::_exit(95);
  for (kvm_segment* segment : {&sregs->cs, &sregs->ds, &sregs->es, &sregs->ss}) {
    segment->base = 0;
    segment->limit = 0xffff'ffff;
    segment->selector = segment == &sregs->cs ? 0x10 : 0x18;
    segment->db = segment->g = 1;
  }
  sregs->cr0 |= 1;
  kvm_regs regs{};
  regs.rip = 0x1000;
  regs.rflags = 2;
  if (!(*vcpu)->SetSregs(*sregs).ok() || !(*vcpu)->SetRegs(regs).ok()) ::_exit(96);
  OpeningPort port;
  WaitingControl control;
  IoBus ports, mmio;
  if (!ports.Add(0x10, 1, "opens a file", port).ok()) ::_exit(97);
  const MonitorJailOptions options;
  if (!PrepareConfinement(options, {}).ok()) ::_exit(98);
  const std::function<absl::Status()> confine = [&]() -> absl::Status {
    const absl::Status dropped = DropPrivileges(options, {});
    return dropped.ok() ? FilterVpThread(options) : dropped;
  };
  auto vp = VirtualProcessor::Create(*std::move(vcpu), {.ports = ports, .memory = mmio, .control = control, .confine = &confine});
  if (!vp.ok() || !(*vp)->Start().ok()) ::_exit(98);
  if (!control.ended.WaitForNotificationWithTimeout(absl::Seconds(120))) ::_exit(89);
  (*vp)->Join();
  ::_exit(control.reason == MachineEnd::kTripleFault ? 99 : 88);
}

struct Outcome {
  std::string said;
  int exit_code = -1;
  int signal = -1;
};

Outcome InChild(const std::function<void()>& body) {
  int fds[2];
  EXPECT_EQ(::pipe2(fds, O_CLOEXEC), 0);
  const OwnedFd read(fds[0]);
  OwnedFd write(fds[1]);
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(write.get(), STDERR_FILENO);
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);  // no core
    body();
    ::_exit(100);
  }
  write.Reset();
  Outcome outcome;
  char buffer[4096];
  for (ssize_t got; (got = ::read(read.get(), buffer, sizeof(buffer))) > 0;) outcome.said.append(buffer, static_cast<size_t>(got));
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  if (WIFSIGNALED(status)) outcome.signal = WTERMSIG(status);
  return outcome;
}

class ConfinedVpTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
  }
};

// mov al, 1; out 0x10, al; ud2 without an IDT: a triple fault
TEST_F(ConfinedVpTest, OpeningAFileEndsTheProcessAndIsReported) {
  const Outcome outcome = InChild([] { RunConfined({0xb0, 0x01, 0xe6, 0x10, 0x0f, 0x0b}); });
  EXPECT_EQ(outcome.signal, SIGSYS) << outcome.exit_code;
  EXPECT_THAT(outcome.said, AllOf(HasSubstr(" error sandbox: thread 'vp-0' (id "), HasSubstr("made system call 257 (openat)"),
                                  HasSubstr("its policy 'vp_policy' does not have; refused")));
}

// The same with al = 0: the thread runs its guest to the end, and nothing else of this test is what ends the other.
TEST_F(ConfinedVpTest, RunsItsGuestOtherwise) {
  const Outcome outcome = InChild([] { RunConfined({0xb0, 0x00, 0xe6, 0x10, 0x0f, 0x0b}); });
  EXPECT_EQ(outcome.exit_code, 99) << outcome.signal << outcome.said;
  EXPECT_EQ(outcome.said, "");
}

}  // namespace
}  // namespace vmm
