// A virtual processor of two trust levels: two VMs over the same memory, by real guest instructions. Who runs is the test's to say.

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <thread>
#include <utility>
#include <vector>

#include "absl/synchronization/notification.h"
#include "absl/time/time.h"
#include "base/status_matchers.h"
#include "devices/guest_interface.h"
#include "devices/io_bus.h"
#include "devices/machine_control.h"
#include "gtest/gtest.h"
#include "kvm/system.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/layout.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/virtual_processor.h"

namespace vmm {
namespace {

using Bytes = std::vector<uint8_t>;
using Words = std::vector<uint32_t>;

Bytes operator+(Bytes a, const Bytes& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}
Bytes Imm32(uint8_t opcode, uint32_t value) {
  return {opcode, uint8_t(value), uint8_t(value >> 8), uint8_t(value >> 16), uint8_t(value >> 24)};
}
Bytes MovEax(uint32_t value) { return Imm32(0xb8, value); }
Bytes MovEbx(uint32_t value) { return Imm32(0xbb, value); }
const Bytes kOutEax = {0xe7, 0x10};
const Bytes kOutEbx = Bytes{0x89, 0xd8} + kOutEax;                    // mov eax, ebx
const Bytes kOutEsp = Bytes{0x89, 0xe0} + kOutEax;                    // mov eax, esp
const Bytes kOutCr2 = Bytes{0x0f, 0x20, 0xd0} + kOutEax;              // mov eax, cr2
const Bytes kOutDr0 = Bytes{0x0f, 0x21, 0xc0} + kOutEax;              // mov eax, dr0
const Bytes kOutXmm0 = Bytes{0x66, 0x0f, 0x7e, 0xc0} + kOutEax;       // movd eax, xmm0
const Bytes kEbxToCr2 = {0x0f, 0x22, 0xd3};
const Bytes kEbxToDr0 = {0x0f, 0x23, 0xc3};
const Bytes kEbxToXmm0 = {0x66, 0x0f, 0x6e, 0xc3};
const Bytes kSwitch = {0x90, 0xe6, 0x30};  // as the hypercall page has it
const Bytes kEnd = {0xe6, 0x50, 0xeb, 0xfe};
const Bytes kSti = {0xfb}, kHlt = {0xf4}, kForever = {0xeb, 0xfe};

constexpr uint32_t kCode0 = 0x1000, kCode1 = 0x2000, kIdt = 0x3000, kGdt = 0x3800, kHandler = 0x4000;
constexpr uint32_t kStack0 = 0x8000, kStack1 = 0x9000;
constexpr uint8_t kVector = 0x40;

class EndControl final : public MachineControl {
 public:
  void RequestEnd(MachineEnd end, absl::string_view) noexcept override {
    if (done.exchange(true)) return;
    reason = end;
    ended.Notify();
  }
  std::atomic<bool> done{false};
  MachineEnd reason = MachineEnd::kStopped;
  absl::Notification ended;
};

class EndPort final : public IoDevice {
 public:
  explicit EndPort(MachineControl& control) : control_(control) {}
  void Read(uint64_t, std::span<std::byte>) noexcept override {}
  void Write(uint64_t, std::span<const std::byte>) noexcept override { control_.RequestEnd(MachineEnd::kPoweredOff, ""); }

 private:
  MachineControl& control_;
};

class WordPort final : public IoDevice {
 public:
  void Read(uint64_t, std::span<std::byte>) noexcept override {}
  void Write(uint64_t, std::span<const std::byte> data) noexcept override {
    uint32_t word = 0;
    std::memcpy(&word, data.data(), std::min(sizeof(word), data.size()));
    words.push_back(word);
  }
  Words words;  // the VP thread's; the test's once it has joined
};

// Goes to the other level by each call; and what the test adds.
class FakeLevels final : public LevelScheduler {
 public:
  Turn BeforeEntry() noexcept override {
    if (std::exchange(switch_asked, false)) {
      EXPECT_TRUE(vp->SwitchTo(1 - vp->active()));
    }
    return before_entry ? before_entry() : Turn::kRun;
  }
  void AfterExit() noexcept override { ++exits; }
  VirtualProcessor* vp = nullptr;
  bool switch_asked = false;
  std::function<Turn()> before_entry;
  int exits = 0;
};

class FakeLevel final : public GuestInterface {
 public:
  explicit FakeLevel(FakeLevels& levels) : levels_(levels) {}
  bool ReadMsr(uint32_t, uint64_t&) noexcept override { return false; }
  bool WriteMsr(uint32_t, uint64_t) noexcept override { return false; }
  HypercallOutcome Hypercall(HypercallRegisters&, XmmAccess&) noexcept override {
    levels_.switch_asked = true;
    return HypercallOutcome::kSwitchVtl;
  }
  bool OnInaccessibleMemory() noexcept override { return false; }
  void PrepareToEnter() noexcept override {}
  void OnHalt() noexcept override { ++halts; }
  int halts = 0;

 private:
  FakeLevels& levels_;
};

class VirtualProcessorLevelsTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    ASSERT_OK_AND_ASSIGN(system_, kvm::System::Open());
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kMiB));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kMiB}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    ASSERT_OK_AND_ASSIGN(memory1_, GuestMemory::Create(*ram, layout));
    ASSERT_OK(ports_.Add(0x10, 4, "words", words_));
    ASSERT_OK(ports_.Add(0x50, 1, "end", end_));
    std::unique_ptr<kvm::Vcpu> vcpus[2];
    for (int level = 0; level < 2; ++level) {
      ASSERT_OK_AND_ASSIGN(vms_[level], system_->CreateVm());
      const auto& mapping = (level == 0 ? memory_ : memory1_)->UnsafeMappings()[0];
      ASSERT_OK(vms_[level]->SetMemorySlot(0, mapping.range.start, mapping.host, mapping.range.bytes));
      ASSERT_OK_AND_ASSIGN(vcpus[level], vms_[level]->CreateVcpu(0));
      ASSERT_OK_AND_ASSIGN(const auto cpuid, system_->SupportedCpuid());
      ASSERT_OK(vcpus[level]->SetCpuid(cpuid));
    }
    std::vector<VirtualProcessor::UpperLevel> above;
    above.push_back({std::move(vcpus[1]), &level1_});
    ASSERT_OK_AND_ASSIGN(vp_, VirtualProcessor::Create(std::move(vcpus[0]),
                                                       {.ports = ports_,
                                                        .memory = memory_bus_,
                                                        .control = control_,
                                                        .guest = &level0_,
                                                        .hypercall_port = 0x30,
                                                        .scheduler = &levels_},
                                                       std::move(above)));
    levels_.vp = vp_.get();
  }

  // Flat 32-bit protected mode, an IDT whose one vector goes to kHandler.
  void Load(size_t level, const Bytes& code) {
    const uint32_t at = level == 0 ? kCode0 : kCode1;
    ASSERT_TRUE(memory_->Write(Gpa(at), std::as_bytes(std::span(code))));
    ASSERT_TRUE(memory_->WriteObject(Gpa(kIdt + 8 * kVector), kHandler | uint64_t{0x10} << 16 | uint64_t{0x8e00} << 32));
    ASSERT_TRUE(memory_->WriteObject(Gpa(kGdt + 0x10), uint64_t{0x00cf'9b00'0000'ffff}));
    ASSERT_TRUE(memory_->WriteObject(Gpa(kGdt + 0x18), uint64_t{0x00cf'9300'0000'ffff}));
    ASSERT_OK_AND_ASSIGN(kvm_sregs sregs, vp_->vcpu(level).GetSregs());
    for (kvm_segment* segment : {&sregs.cs, &sregs.ds, &sregs.es, &sregs.ss}) {
      segment->base = 0;
      segment->limit = 0xffff'ffff;
      segment->selector = segment == &sregs.cs ? 0x10 : 0x18;
      segment->db = 1;
      segment->g = 1;
    }
    sregs.cr0 |= 1;
    sregs.cr4 |= 1 << 9;  // OSFXSR
    sregs.idt = {.base = kIdt, .limit = 8 * (kVector + 1) - 1};
    sregs.gdt = {.base = kGdt, .limit = 4 * 8 - 1};
    ASSERT_OK(vp_->vcpu(level).SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = at;
    regs.rsp = level == 0 ? kStack0 : kStack1;
    regs.rflags = 2;
    ASSERT_OK(vp_->vcpu(level).SetRegs(regs));
  }
  void PutHandler(const Bytes& code) { ASSERT_TRUE(memory_->Write(Gpa(kHandler), std::as_bytes(std::span(code)))); }
  void Finish() {
    ASSERT_TRUE(control_.ended.WaitForNotificationWithTimeout(absl::Seconds(60)));
    vp_->RequestStop();
    vp_->Join();
    EXPECT_EQ(control_.reason, MachineEnd::kPoweredOff);
  }
  void RunToEnd() {
    ASSERT_OK(vp_->Start());
    Finish();
  }

  std::unique_ptr<kvm::System> system_;
  std::unique_ptr<GuestMemory> memory_, memory1_;
  std::unique_ptr<kvm::Vm> vms_[2];
  EndControl control_;
  EndPort end_{control_};
  WordPort words_;
  IoBus ports_, memory_bus_;
  FakeLevels levels_;
  FakeLevel level0_{levels_}, level1_{levels_};
  std::unique_ptr<VirtualProcessor> vp_;
};

TEST_F(VirtualProcessorLevelsTest, SharedRegistersGoOverBothWaysAndPrivateOnesStay) {
  Load(0, MovEbx(0x11) + kEbxToCr2 + MovEbx(0x22) + kEbxToDr0 + MovEbx(0x33) + kEbxToXmm0 + MovEbx(0x44) + kSwitch + kOutEbx +
              kOutEsp + kOutCr2 + kOutDr0 + kOutXmm0 + kEnd);
  Load(1, kOutEbx + kOutEsp + kOutCr2 + kOutDr0 + kOutXmm0 + MovEbx(0x55) + kEbxToCr2 + MovEbx(0x66) + kEbxToDr0 + MovEbx(0x77) +
              kEbxToXmm0 + MovEbx(0x88) + kSwitch + kForever);
  RunToEnd();
  EXPECT_EQ(words_.words, (Words{0x44, kStack1, 0x11, 0x22, 0x33, 0x88, kStack0, 0x55, 0x66, 0x77}));
  EXPECT_EQ(vp_->stats().switches.load(), 2u);
  EXPECT_EQ(vp_->active(), 0u);
}

TEST_F(VirtualProcessorLevelsTest, ACallAndAReturnAreOneExitEach) {
  Load(0, kSwitch + kSwitch + kSwitch + kEnd);
  Load(1, kSwitch + kSwitch + kSwitch + kForever);
  RunToEnd();
  EXPECT_EQ(vp_->stats().switches.load(), 6u);
  EXPECT_EQ(vp_->stats().hypercall.load(), 6u);
  // And the end; what interrupts the processor afterwards is the test's stop.
  EXPECT_EQ(static_cast<uint64_t>(levels_.exits) - vp_->stats().interrupted.load(), 7u);
}

TEST_F(VirtualProcessorLevelsTest, TheLevelThatLeftIsBehindItsCallForWhoLooks) {
  Load(0, kSwitch + MovEax(1) + kOutEax + kEnd);
  Load(1, kSwitch + kForever);
  uint64_t rip = 0;
  levels_.before_entry = [&] {
    if (vp_->active() == 1) {
      rip = vp_->vcpu(0).synced_regs().rip;
      // And it goes on where that says: the word is not sent.
      vp_->vcpu(0).synced_regs().rip += 7;
      vp_->vcpu(0).MarkSyncedRegsDirty();
    }
    return LevelScheduler::Turn::kRun;
  };
  RunToEnd();
  EXPECT_EQ(rip, kCode0 + kSwitch.size());
  EXPECT_EQ(words_.words, Words{});
}

TEST_F(VirtualProcessorLevelsTest, AHaltOfALevelWithoutAnInterruptControllerIsTold) {
  Load(0, kSwitch + kEnd);
  Load(1, kHlt + kSwitch + kForever);
  RunToEnd();
  EXPECT_EQ(level1_.halts, 1);
  EXPECT_EQ(vp_->stats().halt.load(), 1u);
}

TEST_F(VirtualProcessorLevelsTest, AProcessorThatWaitsSleepsUntilAKick) {
  Load(0, kEnd);
  std::atomic<bool> may_run{false};
  std::atomic<int> waits{0};
  levels_.before_entry = [&] {
    if (may_run.load()) return LevelScheduler::Turn::kRun;
    waits.fetch_add(1);
    return LevelScheduler::Turn::kWait;
  };
  ASSERT_OK(vp_->Start());
  while (waits.load() == 0) std::this_thread::yield();
  EXPECT_FALSE(control_.done.load());
  may_run = true;
  vp_->Kick();
  Finish();
  EXPECT_LE(waits.load(), 2);
}

TEST_F(VirtualProcessorLevelsTest, AKickBringsALevelAboveOutToo) {
  Load(0, kSwitch + kEnd);
  Load(1, MovEax(5) + kOutEax + kForever);
  std::atomic<bool> back{false};
  std::atomic<int> entries{0};
  levels_.before_entry = [&] {
    if (back.load() && vp_->active() == 1) {
      EXPECT_TRUE(vp_->SwitchTo(0));
    }
    if (vp_->active() == 1) entries.fetch_add(1);
    return LevelScheduler::Turn::kRun;
  };
  ASSERT_OK(vp_->Start());
  while (entries.load() < 2) std::this_thread::yield();  // behind its word, for ever
  back = true;
  vp_->Kick();
  Finish();
}

TEST_F(VirtualProcessorLevelsTest, AnInterruptIsInjectedWhenTheWindowOpens) {
  PutHandler(MovEbx(0x99) + kSwitch + kForever);
  Load(0, kSwitch + kOutEbx + kEnd);
  Load(1, MovEbx(0x11) + kOutEbx + kSti + kForever);
  bool injected = false;
  levels_.before_entry = [&] {
    if (vp_->active() != 1 || injected) return LevelScheduler::Turn::kRun;
    kvm::Vcpu& vcpu = vp_->vcpu(1);
    if (vcpu.run().ready_for_interrupt_injection != 0) {
      EXPECT_TRUE(vp_->Settle());
      EXPECT_TRUE(vcpu.Interrupt(kVector));
      injected = true;
    }
    vcpu.run().request_interrupt_window = injected ? 0 : 1;
    return LevelScheduler::Turn::kRun;
  };
  RunToEnd();
  EXPECT_TRUE(injected);
  EXPECT_EQ(words_.words, (Words{0x11, 0x99}));
}

}  // namespace
}  // namespace vmm
