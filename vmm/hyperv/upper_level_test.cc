#include "vmm/hyperv/upper_level.h"

#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <future>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

#include "absl/status/status.h"
#include "base/mutex.h"
#include "base/status_matchers.h"
#include "devices/guest_interface.h"
#include "devices/hyperv/fake_overlay_space.h"
#include "devices/hyperv/fake_reference_clock.h"
#include "devices/hyperv/hv_cpuid_layout.h"
#include "devices/hyperv/hv_host.h"
#include "devices/hyperv/hv_msr_layout.h"
#include "devices/hyperv/hv_status.h"
#include "devices/hyperv/hv_types.h"
#include "devices/hyperv/hypercall/hv_register_layout.h"
#include "devices/hyperv/hypercall/hv_vp_context_layout.h"
#include "devices/hyperv/hypercall/vp_context_for_test.h"
#include "devices/hyperv/hypercall/vsm_services.h"
#include "devices/hyperv/partition/hv_partition.h"
#include "devices/hyperv/partition/hv_vp.h"
#include "devices/hyperv/synic/connections.h"
#include "devices/hyperv/synic/hv_message_layout.h"
#include "devices/hyperv/synic/synic.h"
#include "devices/hyperv/vsm/tlb_locks.h"
#include "devices/hyperv/vsm/vsm_layout.h"
#include "devices/hyperv/vsm/vsm_partition.h"
#include "devices/hyperv/vsm/vsm_vp.h"
#include "devices/machine_control.h"
#include "kvm/fake_kvm.h"
#include "kvm/uapi.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/level_memory.h"
#include "vcpu/level_scheduler.h"
#include "vcpu/local_apic/apic_directory.h"
#include "vcpu/local_apic/apic_layout.h"
#include "vcpu/local_apic/local_apic.h"
#include "vcpu/local_apic/reference_apic_time.h"
#include "vcpu/vp_requests.h"
#include "vmm/hyperv/kvm_vtl_processor.h"
#include "vmm/hyperv/level_registers.h"
#include "vmm/hyperv/quiet_level_for_test.h"
#include "vmm/hyperv/scheduled_level.h"
#include "vmm/hyperv/two_levels_for_test.h"
#include "vmm/hyperv/vtl_scheduler.h"
#include "vmm/machine/machine_event_loop.h"

namespace vmm {
namespace {

using Turn = LevelScheduler::Turn;
using Use = ScheduledLevel::Use;
using Vectors = std::vector<uint32_t>;

constexpr uint32_t X2apic(ApicRegister number) { return kMsrX2apicFirst + static_cast<uint32_t>(number); }
constexpr Sint kSint = Sint::Of<2>();

// Other levels are not asked here.
class NoLevels final : public HvVpLevels {
 public:
  [[nodiscard]] VsmServices& vsm() noexcept override { std::abort(); }
  [[nodiscard]] PartitionHost& host(Vtl) noexcept override { std::abort(); }
  [[nodiscard]] HvStatus GetRegister(VpIndex, Vtl, bool, HvRegisterName, HvRegisterValue&) noexcept override { std::abort(); }
  [[nodiscard]] HvStatus SetRegister(VpIndex, Vtl, bool, HvRegisterName, const HvRegisterValue&) noexcept override { std::abort(); }
  [[nodiscard]] HvStatus StartVirtualProcessor(VpIndex, Vtl, const HvInitialVpContext&) noexcept override { std::abort(); }
};

// VTL1 of two VPs, of which the first alone has a vCPU, and is what is kicked for both.
class UpperLevelTest : public testing::Test, private SynicDirectory, private HvVpDirectory {
 protected:
  static constexpr uint32_t kVps = 2;
  static constexpr uint64_t kBytes = 16 * kMiB, kMessagePage = 5, kHypercallPage = 0x123;

  UpperLevelTest() {
    const MemoryLayout layout = MemoryLayout::Create(kBytes).value();
    const auto ram = GuestRam::Create({.bytes = kBytes}).value();
    memory_ = GuestMemory::Create(*ram, layout).value();
    view_ = GuestView::Create(*ram, layout, /*overlay_pages=*/1).value();
    level_memory_.emplace(*memory_);
    clock_.now = HvTicks(1'000'000);
    clock_.parameters = ReferenceTscParameters{.scale = 1, .offset = 2};
    for (const HvPrivilege privilege : {HvPrivilege::kSynicRegs, HvPrivilege::kSyntheticTimerRegs, HvPrivilege::kIntrCtrlRegs,
                                        HvPrivilege::kHypercallMsrs, HvPrivilege::kVpIndex}) {
      offer_.With(privilege);
    }
    offer_.With(HvFeature::kDirectTimers);
    offer_.max_vps = kVps;
    shared_.emplace(HvSharedRegisters::Environment{clock_, levels_.control, *level_memory_},
                    HvSharedRegisters::Frequencies{.tsc_hz = 3'000'000'000, .apic_hz = 1'000'000'000});
    partition_ = HvPartition::Create(offer_, *shared_, overlays_).value();
    loop_ = MachineEventLoop::Create().value();
    vtl_processor_.SetProcessor(*levels_.processor);
    registers_.SetProcessor(*levels_.processor);
    levels_.state(1).msrs = {{0x277, 0}};  // PAT
    requests_.SetKick(0, *levels_.processor);
    requests_.SetKick(1, *levels_.processor);
    for (auto& vp : vps_) EXPECT_OK(Finish(*vp));
    EXPECT_TRUE(levels_.Fetch());
  }
  ~UpperLevelTest() override {
    // Their deadlines kick the processor.
    for (auto& vp : vps_) vp.reset();
  }
  absl::Status Finish(UpperLevel& level) {
    return level.Finish(*levels_.processor, offer_,
                        {.partition = *partition_,
                         .connections = connections_,
                         .vps = *this,
                         .clock = clock_,
                         .memory = *level_memory_,
                         .overlays = overlays_,
                         .view = *view_,
                         .requests = requests_,
                         .loop = *loop_,
                         .apics = apics_,
                         .flush = flush_,
                         .levels = no_levels_,
                         .scheduler = scheduler_});
  }

  UpperLevel& level() { return *vps_[0]; }
  LocalApic& apic() { return level().apic(); }
  LocalApic& other() { return vps_[1]->apic(); }
  kvm::FakeVcpu& state() { return levels_.state(1); }
  kvm_run& run() { return *state().run; }
  void Post(uint8_t vector) { apic().Post(ApicDeliveryMode::kFixed, vector); }
  // Both APICs are in x2APIC mode and on, as guests have them.
  void EnableApics() {
    for (auto& vp : vps_) {
      uint64_t base = 0;
      ASSERT_TRUE(vp->ReadMsr(kMsrApicBase, base));
      ASSERT_TRUE(vp->WriteMsr(kMsrApicBase, base | kApicBaseX2apic));
      ASSERT_TRUE(vp->WriteMsr(X2apic(ApicRegister::kSvr), kSvrEnabled | 0xff));
    }
  }
  // The processor says that it would take an interrupt, or not.
  void SetReady(bool ready) {
    run().ready_for_interrupt_injection = ready ? 1 : 0;
    run().if_flag = ready ? 1 : 0;
  }
  bool Eoi() { return level().WriteMsr(kHvMsrEoi, 0); }
  bool IsKicked() { return std::atomic_ref(run().immediate_exit).load() != 0; }
  // By the event loop, for a deadline.
  void WaitForKick() {
    while (!IsKicked()) std::this_thread::yield();
  }
  void EnableVtl1() {
    ASSERT_EQ(vsm_.Enable(kVtl0, 1, 0), HvStatus::kSuccess);
    ASSERT_EQ(scheduler_.Enable(kVtl0, /*own_vp=*/true, 1, LongModeContext()), HvStatus::kSuccess);
  }

 private:
  [[nodiscard]] Synic* Find(VpIndex, Vtl) noexcept override { return nullptr; }
  [[nodiscard]] uint32_t vp_count() const noexcept override { return kVps; }
  [[nodiscard]] HvVp* FindVp(VpIndex vp) noexcept override { return vp.raw() < kVps ? vps_[vp.raw()]->vp() : nullptr; }

 protected:
  HvOffer offer_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<GuestView> view_;
  std::optional<LevelMemory> level_memory_;
  FakeReferenceClock clock_;
  FakeOverlaySpace overlays_;
  std::optional<HvSharedRegisters> shared_;
  std::unique_ptr<HvPartition> partition_;
  ConnectionTable connections_{*this};
  VpRequests requests_{kVps};
  std::unique_ptr<MachineEventLoop> loop_;
  ApicDirectory apics_;
  Mutex flush_;
  NoLevels no_levels_;
  KvmVtlProcessor vtl_processor_;
  LevelRegisters registers_;
  VsmPartition vsm_{VsmOffer{}};
  TlbLocks locks_{kVps};
  QuietLevel vtl0_{true};
  std::array<std::unique_ptr<UpperLevel>, kVps> vps_{std::make_unique<UpperLevel>(VpIndex(0), kVtl1),
                                                     std::make_unique<UpperLevel>(VpIndex(1), kVtl1)};
  VtlScheduler scheduler_{VpIndex(0),
                          VtlScheduler::Environment{.processor = vtl_processor_,
                                                    .partition = vsm_,
                                                    .locks = locks_,
                                                    .registers = registers_,
                                                    .requests = requests_,
                                                    .levels = {&vtl0_, vps_[0].get(), nullptr},
                                                    .kick_all = [] {}}};
  TwoLevelsForTest levels_{{.vtl1 = vps_[0].get(), .scheduler = &scheduler_}};
};

// --- Interrupts into the vCPU ---

TEST_F(UpperLevelTest, AReadyProcessorIsGivenTheHighestInterrupt) {
  EnableApics();
  SetReady(true);
  Post(0x41);
  Post(0x62);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, Vectors{0x62});
  // The other waits for its end, which is an exit: no window.
  EXPECT_EQ(run().request_interrupt_window, 0);
  EXPECT_FALSE(level().IsPending());
  // One an entry: what the last exit said is used up.
  Post(0x83);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, Vectors{0x62});
  EXPECT_EQ(run().request_interrupt_window, 1);
  SetReady(true);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, (Vectors{0x62, 0x83}));
  EXPECT_EQ(run().request_interrupt_window, 0);
  EXPECT_TRUE(Eoi());
  EXPECT_TRUE(Eoi());
  SetReady(true);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, (Vectors{0x62, 0x83, 0x41}));
}

TEST_F(UpperLevelTest, AProcessorThatIsNotReadyTellsWhenItIs) {
  EnableApics();
  SetReady(false);
  Post(0x41);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_TRUE(state().interrupts.empty());
  EXPECT_EQ(run().request_interrupt_window, 1);
  EXPECT_TRUE(level().IsPending());
  SetReady(true);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, Vectors{0x41});
  EXPECT_EQ(run().request_interrupt_window, 0);
  EXPECT_FALSE(level().IsPending());
}

TEST_F(UpperLevelTest, NothingPendingAsksForNothing) {
  EnableApics();
  SetReady(true);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_TRUE(state().interrupts.empty());
  EXPECT_EQ(run().request_interrupt_window, 0);
  EXPECT_EQ(run().ready_for_interrupt_injection, 1);
}

// An auto-EOI vector is over once it is accepted, so what is below it is next already.
TEST_F(UpperLevelTest, BehindAnAutoEoiVectorTheNextWantsAWindow) {
  EnableApics();
  SetReady(true);
  ASSERT_TRUE(level().WriteMsr(kHvMsrSint0 + kSint.raw(), 0x62 | kHvSintAutoEoi));
  level().RaiseSint(kSint);
  Post(0x41);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, Vectors{0x62});
  EXPECT_EQ(run().request_interrupt_window, 1);
}

TEST_F(UpperLevelTest, AnInterruptThatKvmRefusesEndsTheMachine) {
  EnableApics();
  SetReady(true);
  Post(0x41);
  state().refused = {KVM_INTERRUPT};
  EXPECT_FALSE(level().PrepareEntry());
  EXPECT_EQ(levels_.control.reason, MachineEnd::kInternalError);
  EXPECT_NE(levels_.control.text.find("KVM takes no interrupt"), std::string::npos) << levels_.control.text;
  EXPECT_TRUE(level().IsPending());
}

TEST_F(UpperLevelTest, AMachineThatEndsIsGivenNothing) {
  EnableApics();
  SetReady(true);
  Post(0x41);
  levels_.processor->Fail("test");
  EXPECT_FALSE(level().PrepareEntry());
  EXPECT_TRUE(state().interrupts.empty());
}

TEST_F(UpperLevelTest, AnNmiIsGivenAtOnceAndOnce) {
  SetReady(false);
  apic().Post(ApicDeliveryMode::kNmi, 0);
  EXPECT_TRUE(level().IsPending());
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().nmis, 1);
  EXPECT_EQ(run().request_interrupt_window, 0);
  EXPECT_FALSE(level().IsPending());
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().nmis, 1);
}

TEST_F(UpperLevelTest, AnNmiThatKvmRefusesEndsTheMachine) {
  apic().Post(ApicDeliveryMode::kNmi, 0);
  state().refused = {KVM_NMI};
  EXPECT_FALSE(level().PrepareEntry());
  EXPECT_NE(levels_.control.text.find("KVM takes no NMI"), std::string::npos) << levels_.control.text;
}

TEST_F(UpperLevelTest, WhatNobodySpecifiesDoesNothing) {
  using Mode = ApicDeliveryMode;
  for (const Mode mode : {Mode::kInit, Mode::kStartup, Mode::kSmi, Mode::kExtInt}) {
    state().regs.rip = 0x1234;
    apic().Post(mode, 0x20);
    EXPECT_TRUE(level().PrepareEntry());
    EXPECT_FALSE(level().IsPending()) << static_cast<int>(mode);
    EXPECT_EQ(state().nmis, 0);
    EXPECT_TRUE(state().interrupts.empty());
    EXPECT_EQ(state().regs.rip, 0x1234u);
    EXPECT_EQ(state().mp_state, uint32_t{KVM_MP_STATE_RUNNABLE});
  }
}

// --- Priority ---

TEST_F(UpperLevelTest, PriorityIsTheVcpusCr8) {
  EnableApics();
  SetReady(true);
  EXPECT_TRUE(level().WriteMsr(kHvMsrTpr, 0x5a));
  Post(0x5f);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(run().cr8, 5u);
  EXPECT_TRUE(state().interrupts.empty());
  EXPECT_EQ(run().request_interrupt_window, 0);  // it waits for the write of CR8, which is an exit
  // The guest has not touched it: what CR8 does not show stays.
  level().AfterExit();
  uint64_t tpr = 0;
  EXPECT_TRUE(level().ReadMsr(kHvMsrTpr, tpr));
  EXPECT_EQ(tpr, 0x5au);
  // It has.
  run().cr8 = 4;
  level().AfterExit();
  EXPECT_TRUE(level().ReadMsr(kHvMsrTpr, tpr));
  EXPECT_EQ(tpr, 0x40u);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(run().cr8, 4u);
  EXPECT_EQ(state().interrupts, Vectors{0x5f});
}

TEST_F(UpperLevelTest, DeliverableIsWhatTheFlagsLetThroughOrNoPriorityHoldsBack) {
  EnableApics();
  SetReady(true);
  EXPECT_FALSE(level().IsDeliverable());
  Post(0x41);
  EXPECT_TRUE(level().IsDeliverable());
  SetReady(false);
  EXPECT_FALSE(level().IsDeliverable());
  EXPECT_TRUE(level().IsPending());
  SetReady(true);
  EXPECT_TRUE(level().WriteMsr(kHvMsrTpr, 0x40));
  EXPECT_FALSE(level().IsDeliverable());
  EXPECT_FALSE(level().IsPending());
  SetReady(false);
  apic().Post(ApicDeliveryMode::kNmi, 0);
  EXPECT_TRUE(level().IsDeliverable());
}

// --- Kicks ---

TEST_F(UpperLevelTest, WhatBecomesPendingWhileALowerLevelRunsKicks) {
  EnableApics();
  SetReady(false);
  EXPECT_TRUE(level().Arm(Use::kInactive));
  EXPECT_FALSE(IsKicked());
  Post(0x41);
  EXPECT_TRUE(IsKicked());
}

TEST_F(UpperLevelTest, WhatIsPendingCannotBeArmedFor) {
  EnableApics();
  Post(0x41);
  EXPECT_FALSE(level().Arm(Use::kInactive));
  EXPECT_FALSE(IsKicked());
}

TEST_F(UpperLevelTest, WhileItIsDisarmedNothingKicks) {
  EnableApics();
  EXPECT_TRUE(level().Arm(Use::kInactive));
  level().Disarm();
  Post(0x41);
  EXPECT_FALSE(IsKicked());
  EXPECT_TRUE(level().IsPending());
}

TEST_F(UpperLevelTest, AfterAnExitNothingKicks) {
  EnableApics();
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_TRUE(level().Arm(Use::kRuns));
  level().AfterExit();
  Post(0x41);
  EXPECT_FALSE(IsKicked());
}

TEST_F(UpperLevelTest, BehindAWindowNoInterruptNeedsToKick) {
  EnableApics();
  SetReady(false);
  Post(0x41);
  EXPECT_TRUE(level().PrepareEntry());
  ASSERT_EQ(run().request_interrupt_window, 1);
  EXPECT_TRUE(level().Arm(Use::kRuns));  // although it is pending
  Post(0x83);
  EXPECT_FALSE(IsKicked());
  apic().Post(ApicDeliveryMode::kNmi, 0);
  EXPECT_TRUE(IsKicked());
}

TEST_F(UpperLevelTest, InTheGuestWithoutAWindowAnInterruptKicks) {
  EnableApics();
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_TRUE(level().Arm(Use::kRuns));
  Post(0x41);
  EXPECT_TRUE(IsKicked());
}

TEST_F(UpperLevelTest, AHaltWithInterruptsOffWaitsForEventsAlone) {
  EnableApics();
  SetReady(false);
  Post(0x41);
  EXPECT_TRUE(level().Arm(Use::kWaits));
  Post(0x83);
  EXPECT_FALSE(IsKicked());
  apic().Post(ApicDeliveryMode::kNmi, 0);
  EXPECT_TRUE(IsKicked());
}

TEST_F(UpperLevelTest, AHaltWithInterruptsOnWaitsForThem) {
  EnableApics();
  SetReady(true);
  EXPECT_TRUE(level().Arm(Use::kWaits));
  Post(0x41);
  EXPECT_TRUE(IsKicked());
  EXPECT_FALSE(level().Arm(Use::kWaits));
}

// --- VINA ---

TEST_F(UpperLevelTest, VinaIsAnInterruptOfItsOwn) {
  EnableApics();
  SetReady(true);
  level().RaiseVina({.vector = 0x62, .auto_eoi = false});
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, Vectors{0x62});
  SetReady(true);
  Post(0x41);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, Vectors{0x62});  // held back till the end of it
  EXPECT_TRUE(Eoi());
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, (Vectors{0x62, 0x41}));
}

TEST_F(UpperLevelTest, VinaWithAutoEoiIsOverWhenItIsTaken) {
  EnableApics();
  SetReady(true);
  level().RaiseVina({.vector = 0x62, .auto_eoi = true});
  EXPECT_TRUE(level().PrepareEntry());
  SetReady(true);
  Post(0x41);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, (Vectors{0x62, 0x41}));
  EXPECT_TRUE(Eoi());
  // Without, the next time.
  level().RaiseVina({.vector = 0x62, .auto_eoi = false});
  SetReady(true);
  EXPECT_TRUE(level().PrepareEntry());
  Post(0x41);
  SetReady(true);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, (Vectors{0x62, 0x41, 0x62}));
}

// --- Messages between APICs ---

TEST_F(UpperLevelTest, AnIpiReachesTheOtherVp) {
  EnableApics();
  EXPECT_TRUE(level().WriteMsr(X2apic(ApicRegister::kIcrLow), uint64_t{1} << 32 | 0x45));
  EXPECT_EQ(other().NextInterrupt(), 0x45);
  EXPECT_EQ(apic().NextInterrupt(), std::nullopt);
}

TEST_F(UpperLevelTest, AHypercallsInterruptReachesTheVpThatItNames) {
  EnableApics();
  level().host().SendInterrupt(VpIndex(1), 0x46);
  EXPECT_EQ(other().NextInterrupt(), 0x46);
  EXPECT_EQ(apic().NextInterrupt(), std::nullopt);
  level().host().SendInterrupt(VpIndex(0), 0x47);
  EXPECT_EQ(apic().NextInterrupt(), 0x47);
  EXPECT_EQ(level().host().vp_count(), kVps);
}

TEST_F(UpperLevelTest, AssertedInterruptsGoByTheModeOfTheApic) {
  const auto Assert = [this](uint8_t vector, uint64_t destination, bool logical) {
    return level().AssertInterrupt({.nmi = false, .level = false, .logical = logical, .vector = vector, .destination = destination});
  };
  EnableApics();
  EXPECT_TRUE(Assert(0x41, 1, /*logical=*/false));
  EXPECT_EQ(other().NextInterrupt(), 0x41);
  EXPECT_EQ(apic().NextInterrupt(), std::nullopt);
  EXPECT_TRUE(Assert(0x52, 2, /*logical=*/true));  // bit 1 of cluster 0
  EXPECT_EQ(other().NextInterrupt(), 0x52);
  EXPECT_EQ(apic().NextInterrupt(), std::nullopt);
  EXPECT_TRUE(Assert(0x63, 0xff, /*logical=*/false));  // nobody, in this mode
  EXPECT_EQ(other().NextInterrupt(), 0x52);
  EXPECT_TRUE(Assert(0x63, 0xffff'ffff, /*logical=*/false));
  EXPECT_EQ(other().NextInterrupt(), 0x63);
  EXPECT_EQ(apic().NextInterrupt(), 0x63);
}

TEST_F(UpperLevelTest, InXapicModeAllOnesAreEightBits) {
  uint8_t svr[4] = {0xff, 0x01, 0, 0};
  for (auto& vp : vps_) {
    EXPECT_EQ(vp->AccessMemory(kApicDefaultPage + 0xf0, std::as_writable_bytes(std::span(svr)), /*write=*/true), AccessAnswer::kDone);
  }
  EXPECT_TRUE(level().AssertInterrupt({.nmi = false, .level = false, .logical = false, .vector = 0x63, .destination = 0xff}));
  EXPECT_EQ(other().NextInterrupt(), 0x63);
  EXPECT_EQ(apic().NextInterrupt(), 0x63);
}

TEST_F(UpperLevelTest, AnAssertedNmiIsOneAndALevelIsNone) {
  EnableApics();
  EXPECT_TRUE(level().AssertInterrupt({.nmi = true, .level = false, .logical = false, .vector = 0, .destination = 1}));
  EXPECT_TRUE(other().TakeNmi());
  EXPECT_FALSE(apic().TakeNmi());
  EXPECT_FALSE(level().AssertInterrupt({.nmi = false, .level = true, .logical = false, .vector = 0x41, .destination = 1}));
  EXPECT_EQ(other().NextInterrupt(), std::nullopt);
}

// --- Registers ---

TEST_F(UpperLevelTest, EachRegisterIsItsOwners) {
  uint64_t value = 0;
  EXPECT_TRUE(level().ReadMsr(kMsrApicBase, value));
  EXPECT_EQ(value, kApicDefaultPage | kApicBaseEnabled | kApicBaseBsp);
  EXPECT_TRUE(vps_[1]->ReadMsr(kMsrApicBase, value));
  EXPECT_EQ(value, kApicDefaultPage | kApicBaseEnabled);
  EXPECT_TRUE(vps_[1]->ReadMsr(kHvMsrVpIndex, value));
  EXPECT_EQ(value, 1u);
  EXPECT_TRUE(level().WriteMsr(kHvMsrVpAssistPage, 0x7001));
  HvRegisterValue assist{};
  EXPECT_EQ(level().GetOwnRegister(HvRegisterName::kVpAssistPage, assist), HvStatus::kSuccess);
  EXPECT_EQ(assist.low, 0x7001u);
  EXPECT_EQ(level().SetOwnRegister(HvRegisterName::kVpAssistPage, {.low = 0x8001, .high = 0}), HvStatus::kSuccess);
  EXPECT_TRUE(level().ReadMsr(kHvMsrVpAssistPage, value));
  EXPECT_EQ(value, 0x8001u);
  EXPECT_FALSE(level().ReadMsr(0x123, value));
  EXPECT_FALSE(level().WriteMsr(0x123, 0));
  EXPECT_FALSE(level().WriteMsr(kHvMsrVpIndex, 0));
}

TEST_F(UpperLevelTest, TheApicsPageIsThereInXapicModeAlone) {
  std::array<std::byte, 4> data{std::byte{0x77}, std::byte{0x77}, std::byte{0x77}, std::byte{0x77}};
  EXPECT_EQ(level().AccessMemory(kApicDefaultPage - 4, data, false), AccessAnswer::kUnclaimed);
  EXPECT_EQ(level().AccessMemory(kApicDefaultPage + 0x1000, data, false), AccessAnswer::kUnclaimed);
  EXPECT_EQ(static_cast<uint8_t>(data[0]), 0x77);
  EXPECT_EQ(vps_[1]->AccessMemory(kApicDefaultPage + 0x20, data, false), AccessAnswer::kDone);
  EXPECT_EQ(static_cast<uint8_t>(data[3]), 1);  // ID
  data = {std::byte{0x30}, {}, {}, {}};
  EXPECT_EQ(level().AccessMemory(kApicDefaultPage + 0x80, data, true), AccessAnswer::kDone);
  uint64_t tpr = 0;
  EXPECT_TRUE(level().ReadMsr(kHvMsrTpr, tpr));
  EXPECT_EQ(tpr, 0x30u);
  EnableApics();
  EXPECT_EQ(level().AccessMemory(kApicDefaultPage + 0x20, data, false), AccessAnswer::kUnclaimed);
}

TEST_F(UpperLevelTest, AnEndOfInterruptBringsTheNextMessage) {
  EnableApics();
  SetReady(true);
  ASSERT_TRUE(level().WriteMsr(kHvMsrSimp, kMessagePage << kHvOverlayPageShift | kHvOverlayEnable));
  ASSERT_TRUE(level().WriteMsr(kHvMsrSint0 + kSint.raw(), 0x62));
  auto* const slot = reinterpret_cast<HvMessage*>(overlays_.page(3).data()) + kSint.raw();  // partition's two, assist page, this
  HvMessage message{};
  for (const uint32_t type : {1, 2}) {
    message.header.type = static_cast<HvMessageType>(type);
    ASSERT_EQ(level().vp()->synic().Post(Poster::OfVp(VpIndex(0)), kSint, message), HvStatus::kSuccess);
  }
  level().RunPending();
  EXPECT_EQ(slot->header.type, static_cast<HvMessageType>(1));
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_EQ(state().interrupts, Vectors{0x62});
  slot->header.type = HvMessageType::kNone;
  EXPECT_TRUE(Eoi());  // without EOM, which MessagePending asks for
  level().RunPending();
  EXPECT_EQ(slot->header.type, static_cast<HvMessageType>(2));
  EXPECT_EQ(apic().NextInterrupt(), 0x62);
}

// --- Pages that move from one file into another ---

TEST_F(UpperLevelTest, AFaultThatAMovingPageExplainsIsMadeAgain) {
  constexpr Gpfn kPage{0x400};
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_FALSE(level().OnRefusedMemory());
  ASSERT_TRUE(view_->Move(kPage, 1, [] { return true; }));
  EXPECT_TRUE(level().OnRefusedMemory());
  EXPECT_TRUE(level().OnRefusedMemory());  // it does yet
  view_->EndMove(kPage, 1);
  EXPECT_TRUE(level().OnRefusedMemory());  // it did at the entry
  EXPECT_FALSE(level().OnRefusedMemory());
  // What was over before the entry explains nothing behind it.
  ASSERT_TRUE(view_->Move(kPage, 1, [] { return true; }));
  view_->EndMove(kPage, 1);
  EXPECT_TRUE(level().PrepareEntry());
  EXPECT_FALSE(level().OnRefusedMemory());
}

TEST_F(UpperLevelTest, AStoreThatTheEmulatorCouldNotMakeIsMadeInRamAlone) {
  constexpr Gpa kGpa{0x40'0008};
  std::array<std::byte, 4> data{std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}};
  uint32_t there = 0;
  EXPECT_EQ(level().AccessMemory(kGpa.raw(), data, /*write=*/false), AccessAnswer::kUnclaimed);
  EXPECT_EQ(level().AccessMemory(kGpa.raw(), data, /*write=*/true), AccessAnswer::kDone);
  ASSERT_TRUE(memory_->ReadObject(kGpa, there));
  EXPECT_EQ(there, 0x0403'0201u);
  EXPECT_EQ(level().AccessMemory(kBytes, data, /*write=*/true), AccessAnswer::kUnclaimed);
  // Beneath a page of ours nothing is stored.
  ASSERT_OK_AND_ASSIGN(const auto overlay, view_->NewPage());
  ASSERT_TRUE(overlay->Place(kGpa.page(), ViewAccess::kRead));
  data[0] = std::byte{9};
  EXPECT_EQ(level().AccessMemory(kGpa.raw(), data, /*write=*/true), AccessAnswer::kUnclaimed);
  ASSERT_TRUE(memory_->ReadObject(kGpa, there));
  EXPECT_EQ(there, 0x0403'0201u);
}

// --- Deadlines, which the event loop tells of ---

TEST_F(UpperLevelTest, TheTimerOfTheApicKicksAndIsPendingThen) {
  EnableApics();
  ASSERT_TRUE(level().WriteMsr(X2apic(ApicRegister::kDivide), 0xb));
  ASSERT_TRUE(level().WriteMsr(X2apic(ApicRegister::kLvtTimer), 0x61));
  ASSERT_TRUE(level().WriteMsr(X2apic(ApicRegister::kInitialCount), 10 * ReferenceApicTime::kTicksPerHvTick));
  WaitForKick();
  clock_.now = clock_.now + HvTicks(10);
  EXPECT_EQ(apic().NextInterrupt(), std::nullopt);
  level().RunPending();
  EXPECT_EQ(apic().NextInterrupt(), 0x61);
}

TEST_F(UpperLevelTest, ASyntheticTimerKicksAndIsPendingThen) {
  EnableApics();
  const HvTicks deadline = clock_.now + HvTicks(10);
  ASSERT_TRUE(level().WriteMsr(kHvMsrStimer0Config, kHvStimerDirect | 0x71 << kHvStimerVectorShift | kHvStimerEnable));
  ASSERT_TRUE(level().WriteMsr(kHvMsrStimer0Config + 1, deadline.raw()));
  WaitForKick();
  clock_.now = deadline;
  EXPECT_EQ(apic().NextInterrupt(), std::nullopt);
  level().PrepareToEnter();
  EXPECT_EQ(apic().NextInterrupt(), 0x71);
}

// --- With its scheduler ---

TEST_F(UpperLevelTest, ItsInterruptComesBeforeVtl0) {
  EnableApics();
  EnableVtl1();
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(levels_.processor->active(), 0u);
  SetReady(true);
  Post(0x41);
  EXPECT_TRUE(IsKicked());
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_EQ(levels_.processor->active(), 1u);
  EXPECT_EQ(state().interrupts, Vectors{0x41});
  EXPECT_EQ(state().regs.rip, LongModeContext().rip);
  const auto* const page = reinterpret_cast<const HvVpAssistPage*>(level().assist_page());
  EXPECT_EQ(page->entry_reason, static_cast<uint32_t>(VtlEntryReason::kInterrupt));
}

TEST_F(UpperLevelTest, AHaltEndsWithWhatItsFlagsLetThrough) {
  EnableApics();
  EnableVtl1();
  SetReady(true);
  Post(0x41);
  ASSERT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  ASSERT_TRUE(Eoi());
  level().OnHalt();
  EXPECT_TRUE(scheduler_.vsm().IsHalted(kVtl1));
  SetReady(false);
  Post(0x52);
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kWait);
  SetReady(true);
  EXPECT_EQ(scheduler_.BeforeEntry(), Turn::kRun);
  EXPECT_FALSE(scheduler_.vsm().IsHalted(kVtl1));
  EXPECT_EQ(state().interrupts, (Vectors{0x41, 0x52}));
}

// The event of the exit that is completed here may be an exception: KVM would forget one of the two.
TEST_F(UpperLevelTest, NothingIsInjectedBehindAnExitThatIsNotOver) {
  EnableApics();
  EnableVtl1();
  SetReady(true);
  // VTL1 is entered with one that is auto-EOI, and reads an MSR while another waits.
  ASSERT_TRUE(level().WriteMsr(kHvMsrSint0 + kSint.raw(), 0x41 | kHvSintAutoEoi));
  level().RaiseSint(kSint);
  Post(0x32);
  state().runs.push_back([](kvm_run& run) {
    run.exit_reason = KVM_EXIT_X86_RDMSR;
    run.msr.index = kHvMsrVpIndex;
    run.ready_for_interrupt_injection = 1;
    run.if_flag = 1;
    return 0;
  });
  // Before the next entry; the VP's thread is the only one here then.
  std::promise<void> done;
  state().completion = [this, completed = false](kvm_run& run) mutable {
    if (std::exchange(completed, true)) return;
    run.ready_for_interrupt_injection = 0;
    EXPECT_EQ(state().interrupts, Vectors{0x41});
  };
  state().runs.push_back([this, &done](kvm_run&) {
    EXPECT_EQ(run().request_interrupt_window, 1);
    EXPECT_EQ(state().interrupts, Vectors{0x41});
    done.set_value();
    return EINTR;
  });
  ASSERT_OK(levels_.processor->Start());
  done.get_future().wait();
  levels_.processor->RequestStop();
  levels_.processor->Join();
  EXPECT_EQ(levels_.control.reason, std::nullopt) << levels_.control.text;
}

// --- What hypercalls ask of the host ---

TEST_F(UpperLevelTest, AFlushDropsTheHypercallPageOfItsOwnVm) {
  ASSERT_TRUE(level().WriteMsr(kHvMsrGuestOsId, 1));
  ASSERT_TRUE(level().WriteMsr(kHvMsrHypercall, kHypercallPage << kHvOverlayPageShift | kHvOverlayEnable));
  level().host().FlushTlb();
  EXPECT_EQ(state().prefaulted, std::vector<uint64_t>{kHypercallPage * kPageBytes});
  EXPECT_TRUE(levels_.state(0).prefaulted.empty());
  state().refused = {KVM_PRE_FAULT_MEMORY};
  level().host().FlushTlb();  // without it, all the same
  EXPECT_EQ(state().prefaulted.size(), 1u);
}

TEST_F(UpperLevelTest, WorkForItsOwnVpIsDoneAtOnceAndNoneOnceTheMachineEnds) {
  int times = 0;
  EXPECT_TRUE(level().host().RunOn(VpIndex(0), [&] { ++times; }));
  EXPECT_EQ(times, 1);
  requests_.Stop();
  EXPECT_FALSE(level().host().RunOn(VpIndex(1), [&] { ++times; }));
  EXPECT_EQ(times, 1);
}

TEST_F(UpperLevelTest, LevelsAreFinishedInTheOrderOfTheirVps) {
  UpperLevel third(VpIndex(3), kVtl1);
  EXPECT_EQ(Finish(third).code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace vmm
