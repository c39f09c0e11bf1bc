// Every route by which what a page holds could come out of a protected view, or something could come into it, tried by a tiny guest
// of VTL0 on a real KVM, each way of enforcing: instructions, KVM's instruction emulator, page-table walks, and KVM's own writes to
// pages that MSRs name. Each case shows first, or last, that without protection the route is open.
#include <fcntl.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <csignal>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/status_matchers.h"
#include "kvm/guest_code_for_test.h"
#include "kvm/system.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/page_attributes.h"
#include "memory/page_rights.h"
#include "memory/protection_enforcer.h"
#include "memory/protection_map.h"
#include "memory/ram_mapping.h"
#include "vmm/hyperv/kvm_page_attributes.h"
#include "vmm/hyperv/protection_way.h"

namespace vmm {
namespace {

using kvm::Bytes;
using kvm::Increment;
using kvm::JumpBack;
using kvm::LoadAl;
using kvm::MovEax;
using kvm::MovEcx;
using kvm::MovEdx;
using kvm::Out;
using kvm::RunResult;
using kvm::StoreAl;
using kvm::Word;
using kvm::operator+;

constexpr uint64_t kRam = 2 * kMiB;
constexpr uint32_t kCode = 0x1000, kGdt = 0x3000, kIdt = 0x3800, kStack = 0x8000, kPage = 0x9000, kPlain = 0xb000, kDirectory = 0xc000,
                   kOtherTable = 0xe000;
constexpr uint32_t kDevice = 0x1000'0000;  // no RAM
constexpr uint8_t kSecret = 0x5e;
constexpr uint8_t kForeign = 0xee;  // what the guest, or its devices, would put there

constexpr PageRights kNone = PageRights::None();
constexpr PageRights kReadExecute(0xd);

// MSRs of KVM's own, for kvmclock and steal time.
constexpr uint32_t kWallClock = 0x4b56'4d00, kSystemTime = 0x4b56'4d01, kStealTime = 0x4b56'4d03;

Bytes MovEsi(uint32_t value) { return Bytes{0xbe} + Word(value); }
Bytes MovEdi(uint32_t value) { return Bytes{0xbf} + Word(value); }
Bytes MovEsp(uint32_t value) { return Bytes{0xbc} + Word(value); }
Bytes Call(uint32_t from, uint32_t to) { return Bytes{0xe8} + Word(to - (from + 5)); }
const Bytes kRepOutsb = {0xf3, 0x6e}, kRepInsb = {0xf3, 0x6c}, kMovsb = {0xa4};

class ProtectionRoutesTest : public testing::TestWithParam<ProtectionWish> {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    ASSERT_OK_AND_ASSIGN(system_, kvm::System::Open());
    auto made = CreateRestrictedVm(*system_, GetParam());
    if (!made.ok()) GTEST_SKIP() << made.status().message();
    vm_ = std::move(made->vm);
    way_ = made->way;
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRam));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRam}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    attributes_.emplace(*vm_);
    PageAttributes* const attributes = way_ == ProtectionWay::kPrivateAttribute ? &*attributes_ : nullptr;
    ASSERT_OK_AND_ASSIGN(view_, GuestView::Create(*ram, layout, 1, 64, attributes));
    ASSERT_OK_AND_ASSIGN(map_, ProtectionMap::Create(layout, 2));
    ASSERT_OK_AND_ASSIGN(enforcer_, ProtectionEnforcer::Create(*map_, {view_.get()}, Unenforceable::kRefuse));
    const RamMapping& mapping = view_->UnsafeMappings().front();
    ASSERT_OK(vm_->SetMemorySlot(0, mapping.range.start, mapping.host, mapping.range.bytes));
    host_ = memory_->UnsafeHost(Gpa(0), kRam);
    ASSERT_TRUE(memory_->Fill(Gpa(kPage), std::byte{kSecret}, kPageBytes));
    // A guest that does not come to its end is a failure, not a hang: KVM_RUN is interrupted, once.
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ASSERT_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
    ::alarm(120);
  }
  void TearDown() override {
    ::alarm(0);
    vcpu_.reset();
    vm_.reset();
  }

  void Put(uint32_t address, const Bytes& code) { std::memcpy(host_ + address, code.data(), code.size()); }
  template <typename T>
  std::atomic_ref<T> At(uint32_t address) {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(host_ + address));
  }
  void Protect(PageRights rights, uint32_t address = kPage) {
    const std::array<uint64_t, 1> pages{address / kPageBytes};
    ASSERT_EQ(enforcer_->Protect(1, rights, pages).status, ProtectStatus::kDone);
  }
  bool IsPageAsItWas(uint32_t address = kPage, uint8_t content = kSecret) {
    return std::all_of(host_ + address, host_ + address + kPageBytes, [content](std::byte b) { return b == std::byte{content}; });
  }

  // In flat 32-bit protected mode at `start`; with paging by the tables at kDirectory.
  void Start(const Bytes& code, bool paging = false, uint32_t start = kCode) {
    Put(kCode, code);
    if (vcpu_ == nullptr) {
      ASSERT_OK_AND_ASSIGN(vcpu_, vm_->CreateVcpu(0));
      ASSERT_OK_AND_ASSIGN(auto cpuid, system_->SupportedCpuid());
      if (hyperv_) kvm::ShowHyperv(cpuid);
      ASSERT_OK(vcpu_->SetCpuid(cpuid));
    }
    const auto gdt = kvm::FlatGdt();
    std::memcpy(host_ + kGdt, gdt.data(), sizeof(gdt));
    ASSERT_OK_AND_ASSIGN(kvm_sregs sregs, vcpu_->GetSregs());
    kvm::MakeFlat(sregs, kGdt);
    sregs.idt = {.base = kIdt, .limit = 0, .padding = {}};
    if (paging) {
      sregs.cr3 = kDirectory;
      sregs.cr0 |= uint64_t{1} << 31;
    }
    ASSERT_OK(vcpu_->SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = start;
    regs.rsp = kStack;
    regs.rflags = 2;
    ASSERT_OK(vcpu_->SetRegs(regs));
  }
  uint64_t Rip() { return vcpu_->GetRegs().value_or(kvm_regs{}).rip; }
  uint32_t exit_reason() { return vcpu_->run().exit_reason; }

  // The guest stops at its access to kPage, whose address is told where the way is one that tells it.
  void ExpectFault(bool no_access, uint64_t rip) {
    ASSERT_EQ(vcpu_->Run(), RunResult::kMemoryFault) << "exit " << exit_reason();
    EXPECT_EQ(Rip(), rip);
    const auto fault = vcpu_->memory_fault();
    if (way_ == ProtectionWay::kPrivateAttribute && no_access) {
      ASSERT_TRUE(fault.has_value());
      EXPECT_EQ(fault->gpa, Gpa(kPage));
    } else {
      EXPECT_FALSE(fault.has_value());
    }
  }
  void ExpectOut(uint8_t port, std::optional<uint8_t> al = std::nullopt) {
    ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
    ASSERT_EQ(exit_reason(), uint32_t{KVM_EXIT_IO});
    EXPECT_EQ(vcpu_->run().io.port, port);
    if (al.has_value()) {
      EXPECT_EQ(static_cast<uint8_t>(vcpu_->io_data()[0]), *al);
    }
  }

  // Runs on for a few exits, answering reads of ports and devices with kForeign, until an OUT to 0x99 or a fault. True: the secret
  // was in anything that came out.
  bool SecretComesOut() {
    bool seen = false;
    for (int exits = 0; exits < 40; ++exits) {
      if (vcpu_->Run() != RunResult::kExit) return seen;
      kvm_run& run = vcpu_->run();
      if (run.exit_reason == KVM_EXIT_IO) {
        if (run.io.port == 0x99) return seen;
        const auto data = vcpu_->io_data();
        if (run.io.direction == KVM_EXIT_IO_OUT) {
          seen = seen || std::any_of(data.begin(), data.end(), [](std::byte b) { return b == std::byte{kSecret}; });
        } else {
          std::fill(data.begin(), data.end(), std::byte{kForeign});
        }
      } else if (run.exit_reason == KVM_EXIT_MMIO) {
        if (run.mmio.is_write != 0) {
          seen = seen || std::any_of(run.mmio.data, run.mmio.data + std::min<uint32_t>(run.mmio.len, 8), [](uint8_t b) { return b == kSecret; });
        } else {
          std::memset(run.mmio.data, kForeign, sizeof(run.mmio.data));
        }
      } else {
        return seen;
      }
    }
    return seen;
  }

  std::unique_ptr<kvm::System> system_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<GuestView> view_;
  std::unique_ptr<ProtectionMap> map_;
  std::unique_ptr<kvm::Vm> vm_;
  std::optional<KvmPageAttributes> attributes_;
  std::unique_ptr<ProtectionEnforcer> enforcer_;
  std::unique_ptr<kvm::Vcpu> vcpu_;
  ProtectionWay way_{};
  bool hyperv_ = false;  // of the vCPU to be made
  std::byte* host_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Ways, ProtectionRoutesTest, testing::Values(ProtectionWish::kHostMapping, ProtectionWish::kPrivateAttribute),
                         [](const testing::TestParamInfo<ProtectionWish>& info) {
                           return std::string(info.param == ProtectionWish::kHostMapping ? "HostMapping" : "PrivateAttribute");
                         });

// --- Instructions -------------------------------------------------------------------------------------------------------

TEST_P(ProtectionRoutesTest, LoadsStopAndGoOnOnceAllowed) {
  Start(LoadAl(kPage) + Out(0x10));
  Protect(kNone);
  ExpectFault(true, kCode);
  ExpectFault(true, kCode);  // nothing has moved
  ASSERT_OK_AND_ASSIGN(const kvm_regs regs, vcpu_->GetRegs());
  EXPECT_EQ(regs.rax & 0xff, 0u);
  Protect(kReadExecute);
  ExpectOut(0x10, kSecret);
}

TEST_P(ProtectionRoutesTest, StoresStopWithoutTheRightToWrite) {
  for (const PageRights rights : {kNone, kReadExecute}) {
    Start(MovEax(kForeign) + StoreAl(kPage) + Out(0x10));
    Protect(rights);
    ExpectFault(rights == kNone, kCode + 5);
    EXPECT_TRUE(IsPageAsItWas());
  }
  Protect(PageRights());
  ExpectOut(0x10);
  EXPECT_EQ(At<uint8_t>(kPage).load(), kForeign);
}

TEST_P(ProtectionRoutesTest, LockedOperationsStopWithoutTheRightToWrite) {
  Start(Bytes{0xf0} + Increment(kPage) + Out(0x10));
  Protect(kReadExecute);
  ExpectFault(false, kCode);
  EXPECT_TRUE(IsPageAsItWas());
  Protect(PageRights());
  ExpectOut(0x10);
  EXPECT_FALSE(IsPageAsItWas());
}

TEST_P(ProtectionRoutesTest, FetchesStopWithoutAnyRightAndRunWithReadAndExecute) {
  Put(kPage, Bytes{0xc3});  // ret
  Start(Call(kCode, kPage) + Out(0x10));
  Protect(kNone);
  ExpectFault(true, kPage);  // the call itself is made
  Protect(kReadExecute);
  ExpectOut(0x10);
}

TEST_P(ProtectionRoutesTest, ThePageOfTheStackStopsAPush) {
  Start(MovEsp(kPage + 0x100) + Bytes{0x68} + Word(kForeign) + Out(0x10));
  Protect(kReadExecute);
  ExpectFault(false, kCode + 5);
  EXPECT_TRUE(IsPageAsItWas());
  Protect(PageRights());
  ExpectOut(0x10);
  EXPECT_EQ(At<uint32_t>(kPage + 0xfc).load(), uint32_t{kForeign});
}

TEST_P(ProtectionRoutesTest, AnOperandOverTwoPagesStopsAtTheProtectedOne) {
  At<uint32_t>(kPage - 4).store(0x1111'1111);
  Start(Bytes{0xa1} + Word(kPage - 2) + Out(0x10));
  Protect(kNone);
  ExpectFault(true, kCode);
  Protect(PageRights());
  ExpectOut(0x10, 0x11);
}

// --- KVM's instruction emulator -----------------------------------------------------------------------------------------

TEST_P(ProtectionRoutesTest, StringOutputOfAPageGivesNothingAway) {
  const Bytes code = MovEsi(kPage) + MovEcx(8) + MovEdx(0x10) + kRepOutsb + Out(0x99);
  Protect(kNone);
  Start(code);
  EXPECT_FALSE(SecretComesOut());
  Protect(kReadExecute);
  Start(code);
  EXPECT_TRUE(SecretComesOut());
}

TEST_P(ProtectionRoutesTest, StringInputIntoAPageChangesNothing) {
  const Bytes code = MovEdi(kPage) + MovEcx(8) + MovEdx(0x10) + kRepInsb + Out(0x99);
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    Start(code);
    (void)SecretComesOut();
    EXPECT_TRUE(IsPageAsItWas()) << int{rights.bits()};
  }
  Protect(PageRights());
  Start(code);
  (void)SecretComesOut();
  EXPECT_EQ(At<uint8_t>(kPage + 7).load(), kForeign);
}

TEST_P(ProtectionRoutesTest, AMoveFromAPageToADeviceGivesNothingAway) {
  const Bytes code = MovEsi(kPage) + MovEdi(kDevice) + kMovsb + Out(0x99);
  Protect(kNone);
  Start(code);
  EXPECT_FALSE(SecretComesOut());
  Protect(kReadExecute);
  Start(code);
  EXPECT_TRUE(SecretComesOut());
}

TEST_P(ProtectionRoutesTest, AMoveFromADeviceIntoAPageChangesNothing) {
  const Bytes code = MovEsi(kDevice) + MovEdi(kPage) + kMovsb + Out(0x99);
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    Start(code);
    (void)SecretComesOut();
    EXPECT_TRUE(IsPageAsItWas()) << int{rights.bits()};
  }
  Protect(PageRights());
  Start(code);
  (void)SecretComesOut();
  EXPECT_EQ(At<uint8_t>(kPage).load(), kForeign);
}

TEST_P(ProtectionRoutesTest, APushOfADevicesWordOntoAPageAndAPopOfThePageToADevice) {
  const Bytes push = MovEsp(kPage + 0x100) + Bytes{0xff, 0x35} + Word(kDevice) + Out(0x99);
  const Bytes pop = MovEsp(kPage + 0x100) + Bytes{0x8f, 0x05} + Word(kDevice) + Out(0x99);
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    Start(push);
    (void)SecretComesOut();
    EXPECT_TRUE(IsPageAsItWas()) << int{rights.bits()};
  }
  Protect(kNone);
  Start(pop);
  EXPECT_FALSE(SecretComesOut());
  Protect(PageRights());
  Start(pop);
  EXPECT_TRUE(SecretComesOut());
  Start(push);
  (void)SecretComesOut();
  EXPECT_EQ(At<uint8_t>(kPage + 0xfc).load(), kForeign);
}

// --- Page-table walks ---------------------------------------------------------------------------------------------------

class ProtectionWalkTest : public ProtectionRoutesTest {
 protected:
  // The first 4 MiB are mapped to themselves by a table that is not protected, the second 4 MiB by one that lies in kPage.
  // Accessed and dirty bits are clear in kPage, and set elsewhere.
  void MakeTables() {
    for (uint32_t n = 0; n < 1024; ++n) {
      At<uint32_t>(kDirectory + 4 * n).store(0);
      At<uint32_t>(kOtherTable + 4 * n).store(n * 0x1000 | 0x67);
      At<uint32_t>(kPage + 4 * n).store(n * 0x1000 | 0x7);
    }
    At<uint32_t>(kDirectory).store(kOtherTable | 0x67);
    At<uint32_t>(kDirectory + 4).store(kPage | 0x67);
    At<uint8_t>(kPlain).store(kSecret);
  }
  bool IsTableAsItWas() {
    for (uint32_t n = 0; n < 1024; ++n) {
      if (At<uint32_t>(kPage + 4 * n).load() != (n * 0x1000 | 0x7)) return false;
    }
    return true;
  }
  static constexpr uint32_t kByTheTable = 0x40'0000;  // + an address below 4 MiB
};
INSTANTIATE_TEST_SUITE_P(Ways, ProtectionWalkTest, testing::Values(ProtectionWish::kHostMapping, ProtectionWish::kPrivateAttribute),
                         [](const testing::TestParamInfo<ProtectionWish>& info) {
                           return std::string(info.param == ProtectionWish::kHostMapping ? "HostMapping" : "PrivateAttribute");
                         });

TEST_P(ProtectionWalkTest, TheProcessorsWalkStopsAtTheTable) {
  MakeTables();
  const Bytes code = LoadAl(kByTheTable + kPlain) + Out(0x10);
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    Start(code, /*paging=*/true);
    // A bit would be set in the table: reading alone does not do.
    ExpectFault(rights == kNone, kCode);
    EXPECT_TRUE(IsTableAsItWas());
  }
  Protect(PageRights());
  ExpectOut(0x10, kSecret);
  EXPECT_FALSE(IsTableAsItWas());
}

TEST_P(ProtectionWalkTest, TheEmulatorsWalkChangesNothingInTheTableAndTranslatesNothingByIt) {
  MakeTables();
  const Bytes code = MovEsi(kByTheTable + kPlain) + MovEcx(8) + MovEdx(0x10) + kRepOutsb + Out(0x99);
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    Start(code, /*paging=*/true);
    const bool seen = SecretComesOut();
    EXPECT_TRUE(IsTableAsItWas()) << int{rights.bits()};
    EXPECT_FALSE(seen && rights == kNone);
  }
  Protect(PageRights());
  // The fault on the way has left an exception on its way.
  vcpu_.reset();
  GTEST_SUCCEED();
}

// --- Pages that MSRs of KVM's name --------------------------------------------------------------------------------------

class ProtectionMsrTest : public ProtectionRoutesTest {
 protected:
  // The guest leaves and comes back: KVM brings its pages up to date on the way in.
  void LeaveAndComeBack() {
    for (int n = 0; n < 3; ++n) {
      ASSERT_OK(vm_->SetClock(static_cast<uint64_t>(n) * 1'000'000'000));
      ExpectOut(0x10);
    }
  }
  void StartLeaving() {
    const Bytes leave = Out(0x10);
    Start(leave + JumpBack(leave.size()));
  }
};
INSTANTIATE_TEST_SUITE_P(Ways, ProtectionMsrTest, testing::Values(ProtectionWish::kHostMapping, ProtectionWish::kPrivateAttribute),
                         [](const testing::TestParamInfo<ProtectionWish>& info) {
                           return std::string(info.param == ProtectionWish::kHostMapping ? "HostMapping" : "PrivateAttribute");
                         });

TEST_P(ProtectionMsrTest, KvmclockIsNotWrittenToAPageThatWasProtectedAfterwards) {
  StartLeaving();
  ASSERT_TRUE(vcpu_->SetMsr(kSystemTime, kPage | 1));
  LeaveAndComeBack();
  ASSERT_FALSE(IsPageAsItWas());  // the route is there
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    ASSERT_TRUE(memory_->Fill(Gpa(kPage), std::byte{kSecret}, kPageBytes));
    LeaveAndComeBack();
    EXPECT_TRUE(IsPageAsItWas()) << int{rights.bits()};
  }
}

TEST_P(ProtectionMsrTest, KvmclockIsNotWrittenToAPageThatIsProtectedAlready) {
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    StartLeaving();
    (void)vcpu_->SetMsr(kSystemTime, kPage | 1);
    LeaveAndComeBack();
    EXPECT_TRUE(IsPageAsItWas()) << int{rights.bits()};
  }
  Protect(PageRights());
  LeaveAndComeBack();
  EXPECT_FALSE(IsPageAsItWas());
}

TEST_P(ProtectionMsrTest, TheWallClockIsNotWrittenToAProtectedPage) {
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    Start(MovEcx(kWallClock) + MovEax(kPage) + MovEdx(0) + Bytes{0x0f, 0x30} + Out(0x10));
    (void)vcpu_->Run();
    EXPECT_TRUE(IsPageAsItWas()) << int{rights.bits()};
  }
  Protect(PageRights());
  Start(MovEcx(kWallClock) + MovEax(kPage) + MovEdx(0) + Bytes{0x0f, 0x30} + Out(0x10));
  ExpectOut(0x10);
  EXPECT_FALSE(IsPageAsItWas());
}

TEST_P(ProtectionMsrTest, StealTimeIsNotWrittenToAProtectedPage) {
  StartLeaving();
  if (!vcpu_->SetMsr(kStealTime, kPage | 1)) GTEST_SKIP() << "this KVM has no steal time";
  LeaveAndComeBack();
  ASSERT_FALSE(IsPageAsItWas());  // the route is there
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    ASSERT_TRUE(memory_->Fill(Gpa(kPage), std::byte{kSecret}, kPageBytes));
    for (int n = 0; n < 5; ++n) {
      LeaveAndComeBack();
      ::sched_yield();  // what it counts
    }
    EXPECT_TRUE(IsPageAsItWas()) << int{rights.bits()};
  }
}

// --- KVM's Hyper-V interface --------------------------------------------------------------------------------------------

class ProtectionHypervTest : public ProtectionRoutesTest {
 protected:
  static constexpr uint32_t kGuestOsId = 0x4000'0000, kSimp = 0x4000'0083, kEom = 0x4000'0084, kSint3 = 0x4000'0093,
                            kTimerConfig = 0x4000'00b0, kTimerCount = 0x4000'00b1;
  void SetUp() override {
    ProtectionRoutesTest::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (vm_->CheckExtension(KVM_CAP_HYPERV_SYNIC2) == 0) GTEST_SKIP() << "no KVM_CAP_HYPERV_SYNIC2";
    hyperv_ = true;
    ASSERT_OK(vm_->CreateIrqChip(Gpa(0xfeff'c000), Gpa(0xfeff'd000)));
  }
};
INSTANTIATE_TEST_SUITE_P(Ways, ProtectionHypervTest, testing::Values(ProtectionWish::kHostMapping, ProtectionWish::kPrivateAttribute),
                         [](const testing::TestParamInfo<ProtectionWish>& info) {
                           return std::string(info.param == ProtectionWish::kHostMapping ? "HostMapping" : "PrivateAttribute");
                         });

// A guest reaches these by the instruction, whatever its hypercall page says.
TEST_P(ProtectionHypervTest, AHypercallOfKvmsOwnDoesNotReadItsInputFromAPageWithoutTheRight) {
  const std::array<uint64_t, 2> ipi{0x41, 1};  // vector, processor 0
  std::memcpy(host_ + kPage, ipi.data(), sizeof(ipi));
  const Bytes call = MovEax(0x000b) + MovEdx(0) + Bytes{0xbb} + Word(0) + MovEcx(kPage) + kvm::HypercallOpcode() + Out(0x11);
  Start(kvm::kApicOn + Out(0x10) + call + call + JumpBack(call.size()));
  ASSERT_TRUE(vcpu_->SetMsr(kGuestOsId, 0x8100'0000));
  ExpectOut(0x10);
  ExpectOut(0x11, 0);  // success: the route is there
  Protect(kNone);
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  ASSERT_EQ(exit_reason(), uint32_t{KVM_EXIT_IO});
  EXPECT_NE(static_cast<uint8_t>(vcpu_->io_data()[0]), 0);
}

TEST_P(ProtectionHypervTest, ATimersMessageIsNotWrittenToAProtectedPage) {
  ASSERT_TRUE(memory_->Fill(Gpa(kPage), std::byte{0}, kPageBytes));
  const Bytes arm = kvm::Wrmsr(kTimerConfig, 8 | 3 << 16) + kvm::Wrmsr(kTimerCount, 1) + kvm::Wrmsr(kEom, 0) + Out(0x10);
  Start(kvm::kApicOn + arm + JumpBack(arm.size()));
  ASSERT_OK(vcpu_->EnableSynic2());
  ASSERT_TRUE(vcpu_->SetMsr(kSimp, kPage | 1));
  ASSERT_TRUE(vcpu_->SetMsr(kSint3, 0x43));
  for (int n = 0; n < 100 && IsPageAsItWas(kPage, 0); ++n) ExpectOut(0x10);
  ASSERT_FALSE(IsPageAsItWas(kPage, 0));  // the route is there
  for (const PageRights rights : {kNone, kReadExecute}) {
    Protect(rights);
    ASSERT_TRUE(memory_->Fill(Gpa(kPage), std::byte{0}, kPageBytes));
    for (int n = 0; n < 100; ++n) ExpectOut(0x10);
    EXPECT_TRUE(IsPageAsItWas(kPage, 0)) << int{rights.bits()};
  }
}

// --- At any moment ------------------------------------------------------------------------------------------------------

// The guest counts in the page and never leaves; when Protect has returned, its count has come to an end.
TEST_P(ProtectionRoutesTest, WhenProtectReturnsAVcpuInGuestModeHasStopped) {
  constexpr int kRounds = 100;
  At<uint32_t>(kPage).store(0);
  const Bytes count = Increment(kPage);
  Start(count + JumpBack(count.size()));
  int late = 0;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t start = At<uint32_t>(kPage).load();
    RunResult result = RunResult::kError;
    std::thread runner([&] { result = vcpu_->Run(); });
    while (At<uint32_t>(kPage).load() == start) ::sched_yield();
    Protect(round % 2 == 0 ? kNone : kReadExecute);
    const uint32_t at_return = At<uint32_t>(kPage).load();
    runner.join();
    ASSERT_EQ(result, RunResult::kMemoryFault);
    late += At<uint32_t>(kPage).load() != at_return ? 1 : 0;
    Protect(PageRights());
  }
  EXPECT_EQ(late, 0);
}

// --- Overlays -----------------------------------------------------------------------------------------------------------

TEST_P(ProtectionRoutesTest, AnOverlayIsSeenOverAPageWithoutAnyRightAndThePageIsNoneAgainWhenItGoes) {
  ASSERT_OK_AND_ASSIGN(const auto overlay, view_->NewPage());
  std::memset(overlay->data(), 0x22, kPageBytes);
  const Gpfn page(kPage / kPageBytes);
  Protect(kNone);
  Start(LoadAl(kPage) + Out(0x10) + LoadAl(kPage) + Out(0x11) + LoadAl(kPage) + Out(0x12));
  ASSERT_TRUE(overlay->Place(page, ViewAccess::kReadWrite));
  ExpectOut(0x10, 0x22);
  overlay->Remove();
  ExpectFault(true, kCode + 7);
  // Protected while the overlay lies over it, and so protected when that goes.
  Protect(PageRights());
  ASSERT_TRUE(overlay->Place(page, ViewAccess::kReadWrite));
  Protect(kNone);
  ExpectOut(0x11, 0x22);
  overlay->Remove();
  ExpectFault(true, kCode + 14);
  EXPECT_TRUE(IsPageAsItWas());
}

}  // namespace
}  // namespace vmm
