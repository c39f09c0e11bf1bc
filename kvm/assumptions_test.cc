// What we take for granted about KVM, each shown by a few instructions of guest code: the Hyper-V interface stands on these.
// A failure here says that a host's KVM is not the one that was measured, not that our code is wrong.

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "kvm/guest_code_for_test.h"
#include "kvm/ioctl.h"
#include "kvm/system.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/gpa.h"

namespace vmm::kvm {
namespace {

const Bytes kEoi = StoreImmediate(0xfee0'00b0, 0);

constexpr uint32_t kRam = 1 << 20, kPage = 4096;
constexpr uint32_t kCode = 0x1000, kSecondCode = 0x2000, kIdt = 0x3000, kGdt = 0x3800, kHandlers = 0x4000, kStack = 0x8000;
constexpr uint32_t kOverlay = 0x9000, kDirectory = 0xa000, kTable = 0xb000, kVariables = 0xc000;
constexpr uint8_t kVectors = 0x50;

constexpr uint32_t kGuestOsId = 0x4000'0000, kScontrol = 0x4000'0080, kSimp = 0x4000'0083, kEom = 0x4000'0084;
constexpr uint32_t kSint2 = 0x4000'0092, kSint3 = 0x4000'0093, kStimer0Config = 0x4000'00b0, kStimer0Count = 0x4000'00b1;
constexpr uint64_t kAutoEoi = 1 << 17;
constexpr uint32_t kTimerEnable = 1, kTimerAutoEnable = 8, kTimerDirect = 1 << 12;

class KvmAssumption : public testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    ASSERT_OK_AND_ASSIGN(system_, System::Open());
    ram_fd_ = OwnedFd(::memfd_create("ram", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(ram_fd_.get(), kRam), 0);
    ram_ = Map(nullptr, kRam, PROT_READ | PROT_WRITE, ram_fd_.get(), 0);       // what the VM uses
    monitor_ = Map(nullptr, kRam, PROT_READ | PROT_WRITE, ram_fd_.get(), 0);   // ours
    pages_fd_ = OwnedFd(::memfd_create("pages", MFD_CLOEXEC));
    ASSERT_EQ(::ftruncate(pages_fd_.get(), kPage), 0);
    page_ = Map(nullptr, kPage, PROT_READ | PROT_WRITE, pages_fd_.get(), 0);
    ASSERT_OK_AND_ASSIGN(vm_, system_->CreateVm());
    ASSERT_OK(vm_->SetMemorySlot(0, Gpa(0), reinterpret_cast<std::byte*>(ram_), kRam));
    // A guest that never comes to its OUT is a failure, not a hang: KVM_RUN is interrupted, once.
    struct sigaction action{};
    action.sa_handler = [](int) {};
    ASSERT_EQ(::sigaction(SIGALRM, &action, nullptr), 0);
    ::alarm(60);
  }
  void TearDown() override {
    ::alarm(0);
    vcpus_.clear();
    vm_.reset();
    for (uint8_t* map : {ram_, monitor_}) {
      if (map != nullptr) ::munmap(map, kRam);
    }
    if (page_ != nullptr) ::munmap(page_, kPage);
  }

  static uint8_t* Map(uint8_t* at, size_t bytes, int protection, int fd, off_t offset) {
    void* const map = ::mmap(at, bytes, protection, MAP_SHARED | (at != nullptr ? MAP_FIXED : 0), fd, offset);
    return map == MAP_FAILED ? nullptr : static_cast<uint8_t*>(map);
  }
  [[nodiscard]] bool MapOverlay(int protection) { return Map(ram_ + kOverlay, kPage, protection, pages_fd_.get(), 0) != nullptr; }
  [[nodiscard]] bool MapRamBack() {
    return Map(ram_ + kOverlay, kPage, PROT_READ | PROT_WRITE, ram_fd_.get(), kOverlay) != nullptr;
  }

  void Put(uint32_t address, const Bytes& code) { std::memcpy(monitor_ + address, code.data(), code.size()); }
  void PutHandler(uint8_t vector, const Bytes& code) {
    ASSERT_LE(code.size(), 64u);
    Put(kHandlers + 64u * vector, code);
  }
  template <typename T>
  std::atomic_ref<T> At(uint32_t address) {
    return std::atomic_ref<T>(*reinterpret_cast<T*>(monitor_ + address));
  }

  void CreateIrqChip() { ASSERT_OK(vm_->CreateIrqChip(Gpa(0xfeff'c000), Gpa(0xfeff'd000))); }

  // A vCPU in flat 32-bit protected mode at `start`, with an IDT of handlers, with paging where there is a directory.
  void AddVcpu(uint32_t start, bool hyperv_cpuid = false, bool paging = false) {
    const uint32_t index = static_cast<uint32_t>(vcpus_.size());
    ASSERT_OK_AND_ASSIGN(auto vcpu, vm_->CreateVcpu(index));
    ASSERT_OK_AND_ASSIGN(auto cpuid, system_->SupportedCpuid());
    if (hyperv_cpuid) ShowHyperv(cpuid);
    ASSERT_OK(vcpu->SetCpuid(cpuid));
    for (uint32_t vector = 0; vector < kVectors; ++vector) {
      const uint64_t gate = (kHandlers + 64 * vector) | uint64_t{0x10} << 16 | uint64_t{0x8e00} << 32;
      std::memcpy(monitor_ + kIdt + 8 * vector, &gate, sizeof(gate));
    }
    const auto gdt = FlatGdt();
    std::memcpy(monitor_ + kGdt, gdt.data(), sizeof(gdt));
    ASSERT_OK_AND_ASSIGN(kvm_sregs sregs, vcpu->GetSregs());
    MakeFlat(sregs, kGdt);
    sregs.idt = {.base = kIdt, .limit = kVectors * 8 - 1};
    if (paging) {
      sregs.cr3 = kDirectory;
      sregs.cr0 |= uint64_t{1} << 31;
    }
    ASSERT_OK(vcpu->SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = start;
    regs.rsp = kStack - 0x400 * index;
    regs.rflags = 2;
    ASSERT_OK(vcpu->SetRegs(regs));
    vcpus_.push_back(std::move(vcpu));
  }
  Vcpu& vcpu() { return *vcpus_[0]; }

  // The next OUT: its port and AL. Anything else: -1 and the reason in the log.
  int RunToOut(uint8_t* al = nullptr) {
    const RunResult result = vcpu().Run();
    if (result != RunResult::kExit || vcpu().run().exit_reason != KVM_EXIT_IO) {
      ADD_FAILURE() << "result " << static_cast<int>(result) << ", exit " << vcpu().run().exit_reason;
      return -1;
    }
    if (al != nullptr) *al = static_cast<uint8_t>(vcpu().io_data()[0]);
    return vcpu().run().io.port;
  }

  std::unique_ptr<System> system_;
  OwnedFd ram_fd_, pages_fd_;
  uint8_t* ram_ = nullptr;
  uint8_t* monitor_ = nullptr;
  uint8_t* page_ = nullptr;
  std::unique_ptr<Vm> vm_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
};

TEST_F(KvmAssumption, AWriteToAReadOnlyHostPageIsAMemoryFaultAtTheInstructionAndReadsAndFetchesWork) {
  ASSERT_TRUE(MapOverlay(PROT_READ | PROT_EXEC));
  page_[0] = 0x5a;
  page_[0x10] = 0xc3;  // ret
  const Bytes call = Bytes{0xe8} + Word(kOverlay + 0x10 - (kCode + 7 + 5));
  const Bytes before = LoadAl(kOverlay) + Out(0x10) + call + Out(0x11);
  Put(kCode, before + StoreAl(kOverlay) + Out(0x12));
  PutHandler(13, Bytes{0x58, 0x58} + Out(0x13));  // pop eax twice: the error code, EIP
  AddVcpu(kCode);
  uint8_t al = 0;
  EXPECT_EQ(RunToOut(&al), 0x10);
  EXPECT_EQ(al, 0x5a);
  EXPECT_EQ(RunToOut(), 0x11);
  ASSERT_EQ(vcpu().Run(), RunResult::kMemoryFault);
  ASSERT_OK_AND_ASSIGN(const kvm_regs regs, vcpu().GetRegs());
  EXPECT_EQ(regs.rip, kCode + before.size());
  EXPECT_TRUE(vcpu().InjectException(13, 0));
  EXPECT_EQ(RunToOut(&al), 0x13);
  EXPECT_EQ(al, static_cast<uint8_t>(kCode + before.size()));
  EXPECT_EQ(page_[0], 0x5a);
}

TEST_F(KvmAssumption, APageMappedOverTheSlotIsSeenAtOnceAndRamComesBackUnchanged) {
  const Bytes read = LoadAl(kOverlay) + Out(0x10);
  Put(kCode, read + JumpBack(read.size()));
  monitor_[kOverlay] = 0x11;
  page_[0] = 0x22;
  AddVcpu(kCode);
  uint8_t al = 0;
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(RunToOut(&al), 0x10);
    EXPECT_EQ(al, 0x11);
    ASSERT_TRUE(MapOverlay(PROT_READ | PROT_WRITE));
    ASSERT_EQ(RunToOut(&al), 0x10);
    EXPECT_EQ(al, 0x22);
    ASSERT_TRUE(MapRamBack());
  }
}

TEST_F(KvmAssumption, APageMappedOverTheSlotIsSeenByAVcpuInGuestMode) {
  const Bytes wait = LoadAl(kOverlay) + Bytes{0x3c, 0x22};  // cmp al, 0x22
  Put(kCode, Increment(kVariables) + wait + Bytes{0x75, static_cast<uint8_t>(-static_cast<int>(wait.size()) - 2)} + Out(0x10));
  monitor_[kOverlay] = 0x11;
  page_[0] = 0x22;
  AddVcpu(kCode);
  int port = 0;
  std::thread runner([&] { port = RunToOut(); });
  while (At<uint32_t>(kVariables).load() == 0) ::sched_yield();
  ASSERT_TRUE(MapOverlay(PROT_READ));
  runner.join();
  EXPECT_EQ(port, 0x10);
}

// What page protections stand on: when mprotect has returned, no vCPU that is in guest mode all the while uses the right that was
// taken. The guest counts in the page without ever leaving; a count that grows after mprotect's return would be a use.
TEST_F(KvmAssumption, AfterMprotectNoVcpuInGuestModeWritesToThePage) {
  if (!vm_->HasNestedPaging()) GTEST_SKIP() << "no nested paging";
  constexpr int kRounds = 60;
  const Bytes count = Increment(kOverlay);
  Put(kCode, count + JumpBack(count.size()));
  AddVcpu(kCode);
  int late = 0;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t start = At<uint32_t>(kOverlay).load();
    RunResult result = RunResult::kError;
    std::thread runner([&] { result = vcpu().Run(); });
    while (At<uint32_t>(kOverlay).load() == start) ::sched_yield();
    ASSERT_EQ(::mprotect(ram_ + kOverlay, kPage, round % 2 == 0 ? PROT_NONE : PROT_READ), 0);
    const uint32_t at_return = At<uint32_t>(kOverlay).load();
    runner.join();
    ASSERT_EQ(result, RunResult::kMemoryFault);
    if (At<uint32_t>(kOverlay).load() != at_return) ++late;
    ASSERT_EQ(::mprotect(ram_ + kOverlay, kPage, PROT_READ | PROT_WRITE), 0);
  }
  EXPECT_EQ(late, 0);
}

TEST_F(KvmAssumption, AfterMprotectNoVcpuInGuestModeReadsThePage) {
  if (!vm_->HasNestedPaging()) GTEST_SKIP() << "no nested paging";
  constexpr int kRounds = 60;
  // Counts its rounds, and leaves when it sees the secret.
  const Bytes look = Increment(kVariables) + LoadAl(kOverlay) + Bytes{0x3c, 0x5e};
  const Bytes code = look + Bytes{0x74, 5};  // je over the jump
  Put(kCode, code + JumpBack(code.size()) + Out(0x10));
  AddVcpu(kCode);
  int leaks = 0;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t start = At<uint32_t>(kVariables).load();
    RunResult result = RunResult::kError;
    std::thread runner([&] { result = vcpu().Run(); });
    while (At<uint32_t>(kVariables).load() == start) ::sched_yield();
    ASSERT_EQ(::mprotect(ram_ + kOverlay, kPage, PROT_NONE), 0);
    At<uint8_t>(kOverlay).store(0x5e);
    runner.join();
    if (result != RunResult::kMemoryFault) ++leaks;
    At<uint8_t>(kOverlay).store(0);
    ASSERT_EQ(::mprotect(ram_ + kOverlay, kPage, PROT_READ | PROT_WRITE), 0);
  }
  EXPECT_EQ(leaks, 0);
}

// The same by the attribute, in a VM that has it; and what its fault tells.
TEST_F(KvmAssumption, APrivatePageIsAFaultWithItsAddressAndNoVcpuInGuestModeUsesIt) {
  auto made = system_->CreateVmWithPrivateAttribute();
  if (!made.ok()) GTEST_SKIP() << made.status().message();
  EXPECT_FALSE(vm_->HasPrivateAttribute());  // the default type has not
  vm_ = *std::move(made);
  ASSERT_OK(vm_->SetMemorySlot(0, Gpa(0), reinterpret_cast<std::byte*>(ram_), kRam));
  constexpr int kRounds = 60;
  const Bytes count = Increment(kOverlay + 8);
  Put(kCode, count + JumpBack(count.size()));
  AddVcpu(kCode);
  int late = 0;
  for (int round = 0; round < kRounds; ++round) {
    const uint32_t start = At<uint32_t>(kOverlay + 8).load();
    RunResult result = RunResult::kError;
    std::thread runner([&] { result = vcpu().Run(); });
    while (At<uint32_t>(kOverlay + 8).load() == start) ::sched_yield();
    ASSERT_TRUE(vm_->SetPrivate(Gpa(kOverlay), kPage, true));
    const uint32_t at_return = At<uint32_t>(kOverlay + 8).load();
    runner.join();
    ASSERT_EQ(result, RunResult::kMemoryFault);
    const auto fault = vcpu().memory_fault();
    ASSERT_TRUE(fault.has_value());
    EXPECT_EQ(fault->gpa, Gpa(kOverlay));
    EXPECT_EQ(fault->bytes, kPage);
    if (At<uint32_t>(kOverlay + 8).load() != at_return) ++late;
    ASSERT_TRUE(vm_->SetPrivate(Gpa(kOverlay), kPage, false));
  }
  EXPECT_EQ(late, 0);
  // A fault of the mapping alone, later, is not told as the last one.
  ASSERT_EQ(::mprotect(ram_ + kOverlay, kPage, PROT_NONE), 0);
  ASSERT_EQ(vcpu().Run(), RunResult::kMemoryFault);
  EXPECT_FALSE(vcpu().memory_fault().has_value());
}

// A vCPU that stays in guest mode has read through a page table entry, which is then changed without INVLPG, and reads again when
// told to. `flush` runs between the change and the word to go on. Returns how many of the reads were by the old translation.
class KvmAssumptionTlb : public KvmAssumption {
 protected:
  static constexpr uint32_t kReady = kVariables, kGo = kVariables + 64, kDone = kVariables + 128, kNext = kVariables + 192,
                            kSeen = kVariables + 256;
  static constexpr uint32_t kPage0 = 0x20000, kPage1 = 0x21000;
  static constexpr int kRounds = 300;

  // Linear addresses of the first 4 MiB as they are; the watched one is kPage0.
  void MakeTables() {
    const uint32_t entry = kTable | 7;
    std::memcpy(monitor_ + kDirectory, &entry, sizeof(entry));
    for (uint32_t page = 0; page < 1024; ++page) {
      const uint32_t pte = page * kPage | 7 | 0x60;  // accessed and dirty already: the processor writes none of them
      std::memcpy(monitor_ + kTable + 4 * page, &pte, sizeof(pte));
    }
    monitor_[kPage0] = 0;
    monitor_[kPage1] = 1;
  }
  static Bytes Reader() {
    Bytes code;
    code = LoadAl(kPage0) + Increment(kReady);
    const auto wait_for = [&](uint32_t a, uint32_t b) {  // until the two words are equal
      const Bytes look = LoadEax(a) + CompareEax(b);
      code = code + look + Bytes{0x75, static_cast<uint8_t>(-static_cast<int>(look.size()) - 2)};
    };
    wait_for(kGo, kReady);
    code = code + LoadAl(kPage0) + StoreAl(kSeen) + Increment(kDone);
    wait_for(kNext, kDone);
    return code + JumpBack(code.size());
  }
  template <typename Flush>
  int StaleReads(Flush flush) {
    int stale = 0;
    for (uint32_t round = 1; round <= kRounds; ++round) {
      while (At<uint32_t>(kReady).load() != round) ::sched_yield();
      const uint8_t expected = static_cast<uint8_t>(round & 1);
      At<uint32_t>(kTable + 4 * (kPage0 / kPage)).store((expected == 1 ? kPage1 : kPage0) | 7 | 0x60);
      flush();
      At<uint32_t>(kGo).store(round);
      while (At<uint32_t>(kDone).load() != round) ::sched_yield();
      if (At<uint8_t>(kSeen).load() != expected) ++stale;
      At<uint32_t>(kNext).store(round);
    }
    return stale;
  }
  // The reader runs on its thread until the rounds are over.
  template <typename Flush>
  int Measure(uint32_t reader, Flush flush) {
    struct sigaction action{};
    action.sa_handler = [](int) {};
    EXPECT_EQ(::sigaction(SIGRTMIN, &action, nullptr), 0);
    std::atomic<bool> end{false};
    std::thread runner([&] {
      while (!end.load()) (void)vcpus_[reader]->Run();
    });
    const int stale = StaleReads(flush);
    end = true;
    vcpus_[reader]->RequestExit();
    ::pthread_kill(runner.native_handle(), SIGRTMIN);
    runner.join();
    return stale;
  }
};

TEST_F(KvmAssumptionTlb, WithoutAFlushAVcpuMayUseAnOldTranslation) {
  MakeTables();
  Put(kCode, Reader());
  AddVcpu(kCode, false, true);
  const int stale = Measure(0, [] {});
  std::printf("stale reads without a flush: %d of %d\n", stale, kRounds);
  if (stale == 0) GTEST_SKIP() << "this host drops translations all the time: the tests with a flush prove nothing here";
}

TEST_F(KvmAssumptionTlb, DroppingAPageThatTheVcpuExecutesFlushesItsTlb) {
  MakeTables();
  Put(kCode, Reader());
  AddVcpu(kCode, false, true);
  EXPECT_EQ(Measure(0, [this] { ASSERT_EQ(::madvise(ram_ + kCode, kPage, MADV_DONTNEED), 0); }), 0);
}

TEST_F(KvmAssumptionTlb, DroppingAPageThatAnotherVcpuHasJustExecutedFlushesTheTlbOfAll) {
  MakeTables();
  Put(kSecondCode, Reader());
  Put(kCode, Out(0x10) + JumpBack(2));
  AddVcpu(kCode, false, true);
  AddVcpu(kSecondCode, false, true);
  EXPECT_EQ(Measure(1,
                    [this] {
                      ASSERT_EQ(RunToOut(), 0x10);
                      ASSERT_EQ(::madvise(ram_ + kCode, kPage, MADV_DONTNEED), 0);
                    }),
            0);
}

// Two that drop the same page could race: the second finds it gone, while a processor that the first has flushed already caches the
// old entry again. A page of one's own, mapped ahead, is there whatever the others do.
TEST_F(KvmAssumptionTlb, DroppingAPageMappedAheadFlushesTheTlbOfAll) {
  if (!vm_->HasNestedPaging()) GTEST_SKIP() << "no KVM_CAP_PRE_FAULT_MEMORY";
  MakeTables();
  Put(kSecondCode, Reader());
  Put(kCode, Out(0x10) + JumpBack(2));
  AddVcpu(kCode, false, true);
  AddVcpu(kSecondCode, false, true);
  constexpr uint32_t kOwnPage = 0x80000;  // which no vCPU touches
  EXPECT_EQ(Measure(1,
                    [this] {
                      ASSERT_EQ(RunToOut(), 0x10);
                      ASSERT_TRUE(vcpu().PreFault(Gpa(kOwnPage), kPage));
                      ASSERT_EQ(::madvise(ram_ + kOwnPage, kPage, MADV_DONTNEED), 0);
                    }),
            0);
}

// The page has to be mapped in the VM: dropping one that is not flushes nothing.
TEST_F(KvmAssumptionTlb, DroppingAPageThatNoVcpuHasTouchedIsNoFlush) {
  MakeTables();
  Put(kCode, Reader());
  AddVcpu(kCode, false, true);
  const int stale = Measure(0, [this] { ASSERT_EQ(::madvise(ram_ + 0x80000, kPage, MADV_DONTNEED), 0); });
  std::printf("stale reads after dropping an untouched page: %d of %d\n", stale, kRounds);
  if (stale == 0) GTEST_SKIP() << "this host drops translations all the time";
}

class KvmAssumptionSynic : public KvmAssumption {
 protected:
  void SetUp() override {
    KvmAssumption::SetUp();
    if (IsSkipped() || HasFatalFailure()) return;
    if (vm_->CheckExtension(KVM_CAP_HYPERV_SYNIC2) == 0) GTEST_SKIP() << "no KVM_CAP_HYPERV_SYNIC2";
    CreateIrqChip();
    const MsrRange trapped[] = {{.base = kGuestOsId, .count = 2},    // and HYPERCALL
                                {.base = kScontrol, .count = 0x20}};  // to SINT15
    ASSERT_OK(vm_->SetMsrFilter(trapped));
    ASSERT_OK_AND_ASSIGN(raise_, EventFd::Create());
    ASSERT_OK_AND_ASSIGN(acknowledged_, EventFd::Create());
  }
  // APIC on, interrupts on, OUT 0x10, then `code`, then for ever.
  void Start(const Bytes& code) {
    Put(kCode, kApicOn + Out(0x10) + kSti + code + kForever);
    AddVcpu(kCode, /*hyperv_cpuid=*/true);
    ASSERT_OK(vcpu().EnableSynic2());
    ASSERT_EQ(RunToOut(), 0x10);
  }
  void ConnectSint2() {
    ASSERT_OK_AND_ASSIGN(const uint32_t gsi, vm_->routing().AddHvSint(0, 2));
    ASSERT_OK(vm_->AddIrqFd(raise_.fd(), gsi, acknowledged_.fd()));
  }

  EventFd raise_{OwnedFd()}, acknowledged_{OwnedFd()};
};

TEST_F(KvmAssumptionSynic, UserSpaceSetsTheRegistersOfAVcpuWhoseOwnAccessesAreTrapped) {
  Start(Wrmsr(kEom, 0));
  for (const auto& [msr, value] : {std::pair<uint32_t, uint64_t>{kScontrol, 1}, {kSimp, kOverlay | 1}, {kSint2, 0x40}, {kSint3, 0x1'0000}}) {
    EXPECT_TRUE(vcpu().SetMsr(msr, value)) << std::hex << msr;
    ASSERT_OK_AND_ASSIGN(const uint64_t now, vcpu().GetMsr(msr));
    EXPECT_EQ(now, value) << std::hex << msr;
  }
  EXPECT_TRUE(vcpu().SetMsr(kEom, 0));
  ASSERT_EQ(vcpu().Run(), RunResult::kExit);
  EXPECT_EQ(vcpu().run().exit_reason, uint32_t{KVM_EXIT_X86_WRMSR});
  EXPECT_EQ(vcpu().run().msr.index, kEom);
  EXPECT_EQ(vcpu().run().msr.reason, uint64_t{KVM_MSR_EXIT_REASON_FILTER});
}

TEST_F(KvmAssumptionSynic, AnEventFdRaisesTheSourcesVectorAndAnEoiSignalsTheResampleEventFd) {
  PutHandler(0x40, Out(0x11) + kEoi + Out(0x12) + kIret);
  Start({});
  ASSERT_TRUE(vcpu().SetMsr(kSint2, 0x40));
  ConnectSint2();
  for (int round = 0; round < 3; ++round) {
    raise_.Signal();
    ASSERT_EQ(RunToOut(), 0x11);
    EXPECT_EQ(acknowledged_.Drain(), 0u);
    ASSERT_EQ(RunToOut(), 0x12);
    EXPECT_EQ(acknowledged_.Drain(), 1u);
  }
}

TEST_F(KvmAssumptionSynic, AnEndOfMessageSetByUserSpaceSignalsTheResampleEventFd) {
  Start({});
  ASSERT_TRUE(vcpu().SetMsr(kSint2, 0x40));
  ConnectSint2();
  EXPECT_EQ(acknowledged_.Drain(), 0u);
  ASSERT_TRUE(vcpu().SetMsr(kEom, 0));
  EXPECT_EQ(acknowledged_.Drain(), 1u);
}

TEST_F(KvmAssumptionSynic, AVectorWithAutoEoiComesAgainWithoutAnEoiAndSignalsNoAcknowledgement) {
  PutHandler(0x40, Out(0x11) + kIret);
  Start({});
  ASSERT_TRUE(vcpu().SetMsr(kSint2, 0x40 | kAutoEoi));
  ConnectSint2();
  for (int round = 0; round < 3; ++round) {
    raise_.Signal();
    ASSERT_EQ(RunToOut(), 0x11);
  }
  EXPECT_EQ(acknowledged_.Drain(), 0u);
}

TEST_F(KvmAssumptionSynic, WithoutAutoEoiAVectorDoesNotComeAgainBeforeItsEoi) {
  PutHandler(0x40, Out(0x11) + kSti + Out(0x13) + Out(0x14) + kEoi + Out(0x15) + kIret);
  Start({});
  ASSERT_TRUE(vcpu().SetMsr(kSint2, 0x40));
  ConnectSint2();
  raise_.Signal();
  ASSERT_EQ(RunToOut(), 0x11);
  raise_.Signal();
  EXPECT_EQ(RunToOut(), 0x13);
  EXPECT_EQ(RunToOut(), 0x14);
  EXPECT_EQ(RunToOut(), 0x11);
}

class KvmAssumptionHypercall : public KvmAssumptionSynic {
 protected:
  static Bytes Call(uint32_t code) { return MovEax(code) + MovEdx(0) + MovEbx(0) + MovEcx(kVariables) + HypercallOpcode(); }
};

TEST_F(KvmAssumptionHypercall, KvmAnswersFlushAndIpiOnceUserSpaceHasSetTheGuestOsId) {
  PutHandler(0x41, Out(0x41) + kEoi + kIret);
  Start(Call(0x0002) + Out(0x11) + Call(0x000b) + Out(0x12));
  ASSERT_TRUE(vcpu().SetMsr(kGuestOsId, 0x8100'0000'0000'0000));
  const std::array<uint64_t, 3> flush{0, 1, 1};  // any address space, all of it, processor 0
  std::memcpy(monitor_ + kVariables, flush.data(), sizeof(flush));
  uint8_t al = 0xff;
  EXPECT_EQ(RunToOut(&al), 0x11);
  EXPECT_EQ(al, 0);
  const std::array<uint64_t, 2> ipi{0x41, 1};
  std::memcpy(monitor_ + kVariables, ipi.data(), sizeof(ipi));
  std::array<int, 2> ports{RunToOut(), RunToOut(&al)};
  std::sort(ports.begin(), ports.end());
  EXPECT_EQ(ports, (std::array<int, 2>{0x12, 0x41}));
}

TEST_F(KvmAssumptionHypercall, WithoutAGuestOsIdTheInstructionIsKvmsOwnHypercallAndDoesNotExit) {
  Start(Call(0x0002) + Out(0x11));
  uint8_t al = 0;
  EXPECT_EQ(RunToOut(&al), 0x11);
  EXPECT_EQ(al, static_cast<uint8_t>(-1000));  // KVM_ENOSYS
}

TEST_F(KvmAssumptionHypercall, PostMessageByTheInstructionExitsAsHypervWithTheGuestOsIdSet) {
  Start(Call(0x005c) + Out(0x11));
  ASSERT_TRUE(vcpu().SetMsr(kGuestOsId, 0x8100'0000'0000'0000));
  ASSERT_EQ(vcpu().Run(), RunResult::kExit);
  ASSERT_EQ(vcpu().run().exit_reason, uint32_t{KVM_EXIT_HYPERV});
  EXPECT_EQ(vcpu().run().hyperv.type, uint32_t{KVM_EXIT_HYPERV_HCALL});
  EXPECT_EQ(vcpu().run().hyperv.u.hcall.input, 0x5cu);
  vcpu().run().hyperv.u.hcall.result = 2;
  uint8_t al = 0;
  EXPECT_EQ(RunToOut(&al), 0x11);
  EXPECT_EQ(al, 2);
}

using KvmAssumptionTimer = KvmAssumptionSynic;

TEST_F(KvmAssumptionTimer, ATimerThatTheGuestSetsRaisesItsVectorInDirectMode) {
  PutHandler(0x42, Out(0x42) + kEoi + kIret);
  Start(Wrmsr(kStimer0Config, kTimerAutoEnable | kTimerDirect | 0x42 << 4) + Wrmsr(kStimer0Count, 1));
  EXPECT_EQ(RunToOut(), 0x42);
}

TEST_F(KvmAssumptionTimer, ATimerThatTheGuestSetsPostsItsMessageToThePageThatUserSpaceSet) {
  PutHandler(0x43, Out(0x43) + kEoi + kIret);
  Start(Wrmsr(kStimer0Config, kTimerAutoEnable | 3 << 16) + Wrmsr(kStimer0Count, 1));
  ASSERT_TRUE(MapOverlay(PROT_READ | PROT_WRITE));  // and the page may be one that is mapped over the slot
  ASSERT_TRUE(vcpu().SetMsr(kSimp, kOverlay | 1));
  ASSERT_TRUE(vcpu().SetMsr(kSint3, 0x43));
  EXPECT_EQ(RunToOut(), 0x43);
  uint32_t type = 0;
  std::memcpy(&type, page_ + 3 * 256, sizeof(type));
  EXPECT_EQ(type, 0x8000'0010u);
  EXPECT_EQ(monitor_[kOverlay + 3 * 256], 0);
}

// The retry that frees a timer whose message found its slot busy.
TEST_F(KvmAssumptionTimer, AnEndOfMessageSetByUserSpaceDeliversATimersMessageThatFoundTheSlotBusy) {
  PutHandler(0x43, Out(0x43) + kEoi + kIret);
  const Bytes arm = Wrmsr(kStimer0Config, kTimerAutoEnable | 3 << 16) + Wrmsr(kStimer0Count, 1);
  Start(arm + Out(0x11) + Out(0x12));
  ASSERT_TRUE(vcpu().SetMsr(kSimp, kOverlay | 1));
  ASSERT_TRUE(vcpu().SetMsr(kSint3, 0x43));
  monitor_[kOverlay + 3 * 256] = 1;  // a message of type 1
  ASSERT_EQ(RunToOut(), 0x11);
  ASSERT_EQ(RunToOut(), 0x12);
  EXPECT_EQ(monitor_[kOverlay + 3 * 256], 1);
  EXPECT_EQ(monitor_[kOverlay + 3 * 256 + 5], 1);  // MessagePending
  monitor_[kOverlay + 3 * 256] = 0;
  ASSERT_TRUE(vcpu().SetMsr(kEom, 0));
  EXPECT_EQ(RunToOut(), 0x43);
  EXPECT_EQ(monitor_[kOverlay + 3 * 256], 0x10);
}

TEST_F(KvmAssumptionTimer, AConfigurationSetByUserSpaceArmsTheTimer) {
  PutHandler(0x42, Out(0x42) + kEoi + kIret);
  Start(Wrmsr(kStimer0Count, 1) + Out(0x11) + Out(0x12));
  ASSERT_EQ(RunToOut(), 0x11);
  ASSERT_TRUE(vcpu().SetMsr(kStimer0Config, kTimerEnable | kTimerDirect | 0x42 << 4));
  EXPECT_EQ(RunToOut(), 0x42);
}

TEST_F(KvmAssumptionTimer, AutoEnableSetByUserSpaceArmsTheTimerWhenTheGuestWritesItsCount) {
  PutHandler(0x42, Out(0x42) + kEoi + kIret);
  Start(Wrmsr(kStimer0Count, 1) + Out(0x11));
  ASSERT_TRUE(vcpu().SetMsr(kStimer0Config, kTimerAutoEnable | kTimerDirect | 0x42 << 4));
  EXPECT_EQ(RunToOut(), 0x42);
}

TEST_F(KvmAssumptionTimer, ACountSetByUserSpaceDoesNotEnableTheTimer) {
  Start(Out(0x11) + Out(0x12));
  ASSERT_TRUE(vcpu().SetMsr(kStimer0Config, kTimerAutoEnable | kTimerDirect | 0x42 << 4));
  ASSERT_TRUE(vcpu().SetMsr(kStimer0Count, 1));
  EXPECT_EQ(RunToOut(), 0x11);
  EXPECT_EQ(RunToOut(), 0x12);
  ASSERT_OK_AND_ASSIGN(const uint64_t config, vcpu().GetMsr(kStimer0Config));
  EXPECT_EQ(config & kTimerEnable, 0u);
}

// Without the setting it says "not the TSC" of every VM that has not run yet, and a page that is made then is invalid for ever.
// --- What a higher trust level would like to decide about, and KVM tells nobody ------------------------------------------------

// CR0 with WP, CR4 with DE, GDTR, IDTR, LDTR; then a port.
Bytes SystemRegisterWrites() {
  return Bytes{0x0f, 0x20, 0xc0} + Bytes{0x0d} + Word(0x1'0000) + Bytes{0x0f, 0x22, 0xc0} +  // mov eax, cr0; or; mov cr0, eax
         Bytes{0x0f, 0x20, 0xe0} + Bytes{0x0d} + Word(0x8) + Bytes{0x0f, 0x22, 0xe0} +       // the same of cr4
         Bytes{0x0f, 0x01, 0x15} + Word(kVariables) + Bytes{0x0f, 0x01, 0x1d} + Word(kVariables + 8) +  // lgdt, lidt
         Bytes{0x31, 0xc0, 0x0f, 0x00, 0xd0} + Out(1) + kForever;                                        // lldt ax
}

TEST_F(KvmAssumption, WritesOfControlAndDescriptorTableRegistersDoNotExitWhateverIsAskedFor) {
  CreateIrqChip();
  AddVcpu(kCode);
  // All that this KVM has of exits that can be asked for. Those it lacks are not asked.
  constexpr MsrRange kAll{.base = 0xc000'0000, .count = 0x1000};
  ASSERT_OK(vm_->SetMsrFilter(std::span(&kAll, 1), /*refused_exit=*/true));
  for (const uint32_t capability : {uint32_t{KVM_CAP_EXIT_ON_EMULATION_FAILURE}, uint32_t{KVM_CAP_X86_BUS_LOCK_EXIT},
                                    uint32_t{KVM_CAP_EXCEPTION_PAYLOAD}, uint32_t{KVM_CAP_X86_TRIPLE_FAULT_EVENT}}) {
    (void)vm_->EnableCap(capability, capability == KVM_CAP_X86_BUS_LOCK_EXIT ? KVM_BUS_LOCK_DETECTION_EXIT : 1);
  }
  struct {
    uint16_t limit;
    uint32_t base;
    uint16_t pad;
  } __attribute__((packed)) const tables[2] = {{31, kGdt, 0}, {kVectors * 8 - 1, kIdt, 0}};
  std::memcpy(monitor_ + kVariables, tables, sizeof(tables));
  Put(kCode, SystemRegisterWrites());
  Vcpu& vcpu = *vcpus_[0];
  ASSERT_EQ(vcpu.Run(), RunResult::kExit);
  ASSERT_EQ(vcpu.run().exit_reason, static_cast<uint32_t>(KVM_EXIT_IO));  // the first exit is behind them all
  ASSERT_OK_AND_ASSIGN(const kvm_sregs sregs, vcpu.GetSregs());
  EXPECT_NE(sregs.cr0 & 0x1'0000, 0u);
  EXPECT_NE(sregs.cr4 & 0x8, 0u);
  EXPECT_EQ(sregs.ldt.selector, 0);
}

// Stepping is the one thing that stops at them: behind each instruction, done, and at all others too.
TEST_F(KvmAssumption, SteppingStopsBehindEveryInstructionWithTheRegisterWritten) {
  AddVcpu(kCode);
  Put(kCode, SystemRegisterWrites());
  Vcpu& vcpu = *vcpus_[0];
  kvm_guest_debug debug{};
  debug.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP;
  ASSERT_EQ(Ioctl(vcpu.fd(), KVM_SET_GUEST_DEBUG, &debug), 0);
  for (int step = 0; step < 3; ++step) {
    ASSERT_EQ(vcpu.Run(), RunResult::kExit);
    ASSERT_EQ(vcpu.run().exit_reason, static_cast<uint32_t>(KVM_EXIT_DEBUG));
  }
  ASSERT_OK_AND_ASSIGN(const kvm_sregs sregs, vcpu.GetSregs());
  ASSERT_OK_AND_ASSIGN(const kvm_regs regs, vcpu.GetRegs());
  EXPECT_GE(regs.rip, kCode + 3 + 5 + 3);  // an emulated processor may step over one more
  EXPECT_NE(sregs.cr0 & 0x1'0000, 0u);
}

class KvmAssumptionInit : public KvmAssumption {
 protected:
  // The second vCPU counts; the first sends it INIT.
  void SetUp() override {
    KvmAssumption::SetUp();
    if (IsSkipped()) return;
    CreateIrqChip();
    const Bytes count = Increment(kVariables);
    Put(kSecondCode, count + JumpBack(count.size()));
    Put(kCode, kApicOn + StoreImmediate(0xfee0'0310, 1 << 24) + StoreImmediate(0xfee0'0300, 0x4500) + Out(1));
    AddVcpu(kCode);
    AddVcpu(kSecondCode);
    ASSERT_OK(vcpus_[1]->SetMpState(KVM_MP_STATE_RUNNABLE));
  }
  void SendInit() {
    ASSERT_EQ(vcpus_[0]->Run(), RunResult::kExit);
    ASSERT_EQ(vcpus_[0]->run().exit_reason, static_cast<uint32_t>(KVM_EXIT_IO));
  }
};

TEST_F(KvmAssumptionInit, AVcpuInTheGuestIsResetByItWithoutAnExit) {
  std::atomic<int> thread_id{0};
  std::atomic<bool> over{false};
  std::thread second([&] {
    thread_id = static_cast<int>(::gettid());
    EXPECT_EQ(vcpus_[1]->Run(), RunResult::kInterrupted);  // by the signal below, and by nothing before
    over = true;
  });
  while (At<uint32_t>(kVariables).load() < 1000) std::this_thread::yield();
  SendInit();
  // It stops counting. Not a wait for an event: nothing tells of it.
  uint32_t before, now = At<uint32_t>(kVariables).load();
  do {
    before = now;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    now = At<uint32_t>(kVariables).load();
  } while (now != before);
  EXPECT_FALSE(over);
  vcpus_[1]->RequestExit();
  ::syscall(SYS_tgkill, ::getpid(), thread_id.load(), SIGALRM);
  second.join();
  ASSERT_OK_AND_ASSIGN(const uint32_t state, vcpus_[1]->GetMpState());
  EXPECT_EQ(state, static_cast<uint32_t>(KVM_MP_STATE_INIT_RECEIVED));
}

// Outside the guest it can be taken away, at the cost of a system call an entry: of no use while the guest can be inside.
TEST_F(KvmAssumptionInit, OneThatIsPendingOutsideTheGuestCanBeTakenAway) {
  SendInit();
  ASSERT_OK_AND_ASSIGN(kvm_vcpu_events events, vcpus_[1]->GetVcpuEvents());
  events.smi.latched_init = 0;
  events.flags = KVM_VCPUEVENT_VALID_SMM;
  ASSERT_OK(vcpus_[1]->SetVcpuEvents(events));
  Put(kSecondCode, Out(2));
  ASSERT_EQ(vcpus_[1]->Run(), RunResult::kExit);
  EXPECT_EQ(vcpus_[1]->run().io.port, 2);
}

TEST_F(KvmAssumption, AClockThatIsSetSaysBeforeTheFirstRunWhatItSaysAfterIt) {
  CreateIrqChip();
  Put(kCode, Out(0x10));
  AddVcpu(kCode);
  ASSERT_OK(vm_->SetClock(5'000'000'000));
  ASSERT_OK_AND_ASSIGN(const kvm_clock_data before, vm_->GetClock());
  ASSERT_EQ(RunToOut(), 0x10);
  ASSERT_OK_AND_ASSIGN(const kvm_clock_data after, vm_->GetClock());
  EXPECT_GE(before.clock, 5'000'000'000u);
  EXPECT_GE(after.clock, before.clock);
  EXPECT_EQ(before.flags, after.flags);
}

TEST_F(KvmAssumption, TheClockSaysWhetherItIsTheHostsTsc) {
  CreateIrqChip();
  Put(kCode, Out(0x10));
  AddVcpu(kCode);
  ASSERT_EQ(RunToOut(), 0x10);
  ASSERT_OK_AND_ASSIGN(const kvm_clock_data first, vm_->GetClock());
  ASSERT_OK_AND_ASSIGN(const kvm_clock_data second, vm_->GetClock());
  std::printf("KVM clock flags 0x%x (TSC_STABLE %d, REALTIME %d, HOST_TSC %d), TSC %u kHz, KVM_CAP_ADJUST_CLOCK 0x%x\n", first.flags,
              (first.flags & KVM_CLOCK_TSC_STABLE) != 0, (first.flags & KVM_CLOCK_REALTIME) != 0,
              (first.flags & KVM_CLOCK_HOST_TSC) != 0, vcpu().TscKhz(), vm_->CheckExtension(KVM_CAP_ADJUST_CLOCK));
  EXPECT_GE(second.clock, first.clock);
  if ((first.flags & KVM_CLOCK_HOST_TSC) != 0) {
    EXPECT_NE(first.flags & KVM_CLOCK_TSC_STABLE, 0u);
    EXPECT_GT(first.host_tsc, 0u);
    EXPECT_GT(second.host_tsc, first.host_tsc);
  } else {
    EXPECT_EQ(first.host_tsc, 0u);
  }
}

}  // namespace
}  // namespace vmm::kvm
