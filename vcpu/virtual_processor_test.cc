#include "vcpu/virtual_processor.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/status_matchers.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"

namespace vmm {
namespace {

class RecordingControl final : public MachineControl {
 public:
  void RequestEnd(MachineEnd end, absl::string_view detail) noexcept override {
    absl::MutexLock lock(&mutex);
    if (ended.HasBeenNotified()) return;
    reason = end;
    text = std::string(detail);
    ended.Notify();
  }
  absl::Mutex mutex;
  absl::Notification ended;
  std::optional<MachineEnd> reason;
  std::string text;
};

class RecordingPort final : public IoDevice {
 public:
  void Read(uint64_t, std::span<std::byte> data) noexcept override {
    for (size_t i = 0; i < data.size(); ++i) data[i] = std::byte(0x11 * (i + 1));
  }
  void Write(uint64_t, std::span<const std::byte> data) noexcept override {
    absl::MutexLock lock(&mutex);
    for (const std::byte b : data) bytes.push_back(static_cast<uint8_t>(b));
  }
  absl::Mutex mutex;
  std::vector<uint8_t> bytes;
};

// Answers the first access when it is told to.
class SlowPort final : public IoDevice {
 public:
  void Read(uint64_t, std::span<std::byte>) noexcept override {
    if (accesses.fetch_add(1) == 0) {
      reached.Notify();
      answer.WaitForNotification();
    }
  }
  void Write(uint64_t, std::span<const std::byte>) noexcept override {}
  std::atomic<int> accesses{0};
  absl::Notification reached, answer;
};

class VirtualProcessorTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    ASSERT_OK_AND_ASSIGN(system_, kvm::System::Open());
    ASSERT_OK_AND_ASSIGN(vm_, system_->CreateVm());
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kMiB));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kMiB}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    const auto& mapping = memory_->UnsafeMappings()[0];
    ASSERT_OK(vm_->SetMemorySlot(0, mapping.range.start, mapping.host, mapping.range.bytes));
    ASSERT_OK(ports_.Add(0x10, 4, "port", port_));
    ASSERT_OK(ports_.Add(0x20, 1, "slow", slow_));
    ASSERT_OK(memory_bus_.Add(0xd000'0000, 8, "mmio", port_));
  }

  // 32-bit flat protected mode code at 0x1000.
  void Start(std::vector<uint8_t> code) {
    ASSERT_TRUE(memory_->Write(Gpa(0x1000), std::as_bytes(std::span(code))));
    ASSERT_OK_AND_ASSIGN(auto vcpu, vm_->CreateVcpu(0));
    ASSERT_OK_AND_ASSIGN(kvm_sregs sregs, vcpu->GetSregs());
    for (kvm_segment* segment : {&sregs.cs, &sregs.ds, &sregs.es, &sregs.ss}) {
      segment->base = 0;
      segment->limit = 0xffff'ffff;
      segment->selector = segment == &sregs.cs ? 0x10 : 0x18;
      segment->db = 1;
      segment->g = 1;
    }
    sregs.cr0 |= 1;
    ASSERT_OK(vcpu->SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = 0x1000;
    regs.rsp = 0x8000;
    regs.rflags = 2;
    ASSERT_OK(vcpu->SetRegs(regs));
    ASSERT_OK_AND_ASSIGN(vp_, VirtualProcessor::Create(std::move(vcpu), {ports_, memory_bus_, control_}));
    ASSERT_OK(vp_->Start());
  }
  void WaitForEnd() { ASSERT_TRUE(control_.ended.WaitForNotificationWithTimeout(absl::Seconds(60))); }

  std::unique_ptr<kvm::System> system_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<kvm::Vm> vm_;
  RecordingControl control_;
  RecordingPort port_;
  SlowPort slow_;
  IoBus ports_, memory_bus_;
  std::unique_ptr<VirtualProcessor> vp_;
};

TEST_F(VirtualProcessorTest, PortAccessesReachTheDeviceAndATripleFaultEndsTheMachine) {
  // in eax, 0x10; out 0x10, eax; ud2 without an IDT
  Start({0xe5, 0x10, 0xe7, 0x10, 0x0f, 0x0b});
  WaitForEnd();
  EXPECT_EQ(control_.reason, MachineEnd::kTripleFault);
  EXPECT_EQ(port_.bytes, (std::vector<uint8_t>{0x11, 0x22, 0x33, 0x44}));
}

TEST_F(VirtualProcessorTest, StringOutputArrivesByteByByteInOrder) {
  // mov esi, 0x1000; mov ecx, 4; mov dx, 0x10; rep outsb; ud2
  Start({0xbe, 0, 0x10, 0, 0, 0xb9, 4, 0, 0, 0, 0x66, 0xba, 0x10, 0, 0xf3, 0x6e, 0x0f, 0x0b});
  WaitForEnd();
  EXPECT_EQ(port_.bytes, (std::vector<uint8_t>{0xbe, 0, 0x10, 0}));
}

TEST_F(VirtualProcessorTest, MemoryAccessesReachTheDevice) {
  // mov eax, [0xd0000004]; mov [0xd0000000], eax; ud2
  Start({0xa1, 4, 0, 0, 0xd0, 0xa3, 0, 0, 0, 0xd0, 0x0f, 0x0b});
  WaitForEnd();
  EXPECT_EQ(port_.bytes, (std::vector<uint8_t>{0x11, 0x22, 0x33, 0x44}));
  EXPECT_EQ(vp_->stats().mmio.load(), 2u);
}

TEST_F(VirtualProcessorTest, UnclaimedAccessesReadOnesAndAreCounted) {
  // in al, 0x40; out 0x10, al; ud2
  Start({0xe4, 0x40, 0xe6, 0x10, 0x0f, 0x0b});
  WaitForEnd();
  EXPECT_EQ(port_.bytes, (std::vector<uint8_t>{0xff}));
  EXPECT_EQ(vp_->stats().unclaimed.load(), 1u);
}

TEST_F(VirtualProcessorTest, RequestStopEndsAGuestThatLoops) {
  Start({0xeb, 0xfe});
  vp_->RequestStop();
  vp_->Join();
  EXPECT_FALSE(control_.ended.HasBeenNotified());
}

TEST_F(VirtualProcessorTest, RequestStopWorksWhereTheStarterBlocksEverySignal) {
  sigset_t all, before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  // mov al, 1; out 0x10, al; jmp $
  Start({0xb0, 1, 0xe6, 0x10, 0xeb, 0xfe});
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  // Inside the guest, where only the signal reaches it.
  while (vp_->stats().pio.load() == 0) ::sched_yield();
  vp_->RequestStop();
  vp_->Join();
}

TEST_F(VirtualProcessorTest, RequestStopDoesNotWaitForTheRestOfAStringAccess) {
  // mov edi, 0x4000; mov ecx, 1000; mov dx, 0x20; rep insb; jmp $
  Start({0xbf, 0, 0x40, 0, 0, 0xb9, 0xe8, 3, 0, 0, 0x66, 0xba, 0x20, 0, 0xf3, 0x6c, 0xeb, 0xfe});
  slow_.reached.WaitForNotification();
  vp_->RequestStop();
  slow_.answer.Notify();
  vp_->Join();
  EXPECT_EQ(slow_.accesses.load(), 1);
}

TEST_F(VirtualProcessorTest, ExecutingWhereNothingIsEndsTheMachineNotTheProcess) {
  // jmp 0xd0001000: memory that is not there
  Start({0xb8, 0, 0x10, 0, 0xd0, 0xff, 0xe0});
  WaitForEnd();
  EXPECT_EQ(control_.reason, MachineEnd::kInternalError);
  EXPECT_NE(control_.text.find("virtual processor 0"), std::string::npos);
}

}  // namespace
}  // namespace vmm
