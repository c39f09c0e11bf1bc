// Real guest instructions on a real KVM: what the wrapper says happened is what the guest did.

#include <sys/ioctl.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <thread>
#include <vector>

#include "base/event_fd.h"
#include "base/status_matchers.h"
#include "kvm/capabilities.h"
#include "kvm/irq_routing.h"
#include "kvm/system.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/guest_memory.h"

namespace vmm::kvm {
namespace {

constexpr uint32_t kTscAux = 0xc000'0103;

class KvmTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    ASSERT_OK_AND_ASSIGN(system_, System::Open());
    ASSERT_OK_AND_ASSIGN(vm_, system_->CreateVm());
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kMiB));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kMiB}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    const auto& mapping = memory_->UnsafeMappings()[0];
    ASSERT_OK(vm_->SetMemorySlot(0, mapping.range.start, mapping.host, mapping.range.bytes));
  }

  // Real mode code at 0x1000.
  template <size_t N>
  void Start(const std::array<uint8_t, N>& code) {
    ASSERT_TRUE(memory_->Write(Gpa(0x1000), std::as_bytes(std::span(code))));
    ASSERT_OK_AND_ASSIGN(vcpu_, vm_->CreateVcpu(0));
    ASSERT_OK_AND_ASSIGN(kvm_sregs sregs, vcpu_->GetSregs());
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    ASSERT_OK(vcpu_->SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = 0x1000;
    regs.rflags = 2;
    ASSERT_OK(vcpu_->SetRegs(regs));
  }

  std::unique_ptr<System> system_;
  std::unique_ptr<GuestMemory> memory_;  // outlives the VM
  std::unique_ptr<Vm> vm_;
  std::unique_ptr<Vcpu> vcpu_;
};

TEST_F(KvmTest, APortWriteExitsWithPortAndData) {
  Start(std::to_array<uint8_t>({0xb0, 0x5a, 0xe6, 0x10}));  // mov al, 0x5a; out 0x10, al
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  ASSERT_EQ(vcpu_->run().exit_reason, uint32_t{KVM_EXIT_IO});
  EXPECT_EQ(vcpu_->run().io.port, 0x10);
  ASSERT_EQ(vcpu_->io_data().size(), 1u);
  EXPECT_EQ(vcpu_->io_data()[0], std::byte{0x5a});
}

TEST_F(KvmTest, RequestExitStopsTheNextRunBeforeTheGuestRuns) {
  Start(std::to_array<uint8_t>({0xb0, 0x5a, 0xe6, 0x10}));
  vcpu_->RequestExit();
  EXPECT_EQ(vcpu_->Run(), RunResult::kInterrupted);
  ASSERT_OK_AND_ASSIGN(const kvm_regs regs, vcpu_->GetRegs());
  EXPECT_EQ(regs.rip, 0x1000u);
  vcpu_->ClearExitRequest();
  EXPECT_EQ(vcpu_->Run(), RunResult::kExit);
}

TEST_F(KvmTest, ASignalStopsAGuestThatLoops) {
  Start(std::to_array<uint8_t>({0xeb, 0xfe}));  // jmp $
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGRTMIN, &action, nullptr), 0);
  RunResult result = RunResult::kError;
  std::thread runner([&] { result = vcpu_->Run(); });
  vcpu_->RequestExit();
  ::pthread_kill(runner.native_handle(), SIGRTMIN);
  runner.join();
  EXPECT_EQ(result, RunResult::kInterrupted);
}

TEST_F(KvmTest, ADoorbellPortSignalsItsEventFdWithoutAnExit) {
  ASSERT_OK_AND_ASSIGN(EventFd bell, EventFd::Create());
  ASSERT_OK(vm_->AddPioEventFd(bell.fd(), 0x20, 1));
  Start(std::to_array<uint8_t>({0xe6, 0x20, 0xe6, 0x20, 0xe6, 0x10}));  // out 0x20 twice, out 0x10
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  EXPECT_EQ(vcpu_->run().io.port, 0x10);
  EXPECT_EQ(bell.Drain(), 2u);
}

TEST_F(KvmTest, TrappedMsrsExitByDirectionAndOthersDoNot) {
  const MsrRange trapped[] = {{.base = 0x4000'0000, .count = 0x200},
                              {.base = kTscAux, .count = 1, .read = false, .write = true}};
  ASSERT_OK(vm_->SetMsrFilter(trapped));
  // mov ecx, 0x400001ff; rdmsr; mov ecx, TSC_AUX; rdmsr; wrmsr
  Start(std::to_array<uint8_t>({0x66, 0xb9, 0xff, 0x01, 0x00, 0x40, 0x0f, 0x32, 0x66, 0xb9, 0x03, 0x01, 0x00, 0xc0, 0x0f, 0x32,
                                0x0f, 0x30, 0xe6, 0x10}));
  ASSERT_OK_AND_ASSIGN(const auto cpuid, system_->SupportedCpuid());
  ASSERT_OK(vcpu_->SetCpuid(cpuid));
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  ASSERT_EQ(vcpu_->run().exit_reason, uint32_t{KVM_EXIT_X86_RDMSR});
  EXPECT_EQ(vcpu_->run().msr.index, 0x4000'01ffu);
  vcpu_->run().msr.error = 0;
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  ASSERT_EQ(vcpu_->run().exit_reason, uint32_t{KVM_EXIT_X86_WRMSR});
  EXPECT_EQ(vcpu_->run().msr.index, kTscAux);
  vcpu_->run().msr.error = 0;
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  EXPECT_EQ(vcpu_->run().exit_reason, uint32_t{KVM_EXIT_IO});
}

TEST_F(KvmTest, AFilterOfTooManyRangesIsRefused) {
  const std::vector<MsrRange> trapped(17, MsrRange{.base = 0x4000'0000, .count = 1});
  EXPECT_THAT(vm_->SetMsrFilter(trapped), StatusIs(absl::StatusCode::kInvalidArgument, "17 ranges"));
}

TEST_F(KvmTest, SyncedRegistersAreThoseOfTheExitAndGoBackWhenDirty) {
  Start(std::to_array<uint8_t>({0xb0, 0x5a, 0xe6, 0x10, 0xe6, 0x11}));
  vcpu_->EnableSyncRegs(/*with_sregs=*/true);
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  EXPECT_EQ(vcpu_->synced_regs().rax & 0xff, 0x5au);
  EXPECT_EQ(vcpu_->synced_regs().rip, 0x1002u);
  EXPECT_EQ(vcpu_->synced_sregs().cs.base, 0u);
  vcpu_->synced_regs().rax = 0x77;
  vcpu_->MarkSyncedRegsDirty();
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  EXPECT_EQ(vcpu_->run().io.port, 0x11);  // the first OUT was skipped
  EXPECT_EQ(vcpu_->io_data()[0], std::byte{0x77});
}

// What a hypercall that is made again stands on.
TEST_F(KvmTest, AnOutWhoseRipWasMovedIsNotSkipped) {
  Start(std::to_array<uint8_t>({0x90, 0xe6, 0x10, 0xe6, 0x11}));
  vcpu_->EnableSyncRegs(/*with_sregs=*/false);
  for (int round = 0; round < 3; ++round) {
    ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
    EXPECT_EQ(vcpu_->run().io.port, 0x10);
    EXPECT_EQ(vcpu_->synced_regs().rip, 0x1001u);
    vcpu_->synced_regs().rip -= 1;
    vcpu_->MarkSyncedRegsDirty();
  }
}

TEST_F(KvmTest, ASecondExceptionIsADoubleFaultAndAThirdIsRefused) {
  Start(std::to_array<uint8_t>({0xf4}));
  ASSERT_TRUE(vcpu_->InjectException(13, 0));
  ASSERT_OK_AND_ASSIGN(kvm_vcpu_events events, vcpu_->GetVcpuEvents());
  EXPECT_EQ(events.exception.nr, 13);
  EXPECT_EQ(events.exception.has_error_code, 1);
  ASSERT_TRUE(vcpu_->InjectException(6, std::nullopt));
  ASSERT_OK_AND_ASSIGN(events, vcpu_->GetVcpuEvents());
  EXPECT_EQ(events.exception.nr, 8);
  EXPECT_FALSE(vcpu_->InjectException(6, std::nullopt));
}

TEST_F(KvmTest, StateThatWasSetIsReadBack) {
  ASSERT_OK(vm_->CreateIrqChip(Gpa(0xfeff'c000), Gpa(0xfeff'd000)));
  Start(std::to_array<uint8_t>({0xf4}));
  ASSERT_OK_AND_ASSIGN(const uint64_t offset, vcpu_->GetTscOffset());
  ASSERT_OK(vcpu_->SetTscOffset(offset - 12345));
  ASSERT_OK_AND_ASSIGN(const uint64_t changed, vcpu_->GetTscOffset());
  EXPECT_EQ(changed, offset - 12345);
  ASSERT_OK(vcpu_->SetMpState(KVM_MP_STATE_HALTED));
  ASSERT_OK_AND_ASSIGN(const uint32_t state, vcpu_->GetMpState());
  EXPECT_EQ(state, uint32_t{KVM_MP_STATE_HALTED});
  kvm_fpu fpu{};
  fpu.mxcsr = 0x1f80;
  fpu.xmm[3][0] = 0x42;
  ASSERT_OK(vcpu_->SetFpu(fpu));
  ASSERT_OK_AND_ASSIGN(const kvm_fpu read, vcpu_->GetFpu());
  EXPECT_EQ(read.xmm[3][0], 0x42);
  ASSERT_OK_AND_ASSIGN(kvm_vcpu_events events, vcpu_->GetVcpuEvents());
  EXPECT_OK(vcpu_->SetVcpuEvents(events));
  EXPECT_FALSE(vcpu_->SetMsr(0xdeadbeef, 0));
}

TEST_F(KvmTest, AnMsiIsInTheLocalApicWhenTheCallReturns) {
  ASSERT_OK(vm_->CreateIrqChip(Gpa(0xfeff'c000), Gpa(0xfeff'd000)));
  Start(std::to_array<uint8_t>({0xf4}));
  EXPECT_FALSE(vm_->SignalMsi(0, 0x41));  // the APIC is off
  kvm_lapic_state apic{};
  ASSERT_EQ(::ioctl(vcpu_->fd(), KVM_GET_LAPIC, &apic), 0);
  apic.regs[0xf1] |= 1;  // SVR: software enable
  ASSERT_EQ(::ioctl(vcpu_->fd(), KVM_SET_LAPIC, &apic), 0);
  EXPECT_TRUE(vm_->SignalMsi(0, 0x41));
  ASSERT_EQ(::ioctl(vcpu_->fd(), KVM_GET_LAPIC, &apic), 0);
  EXPECT_EQ(apic.regs[0x200 + 0x41 / 32 * 0x10], 2);  // IRR
  EXPECT_FALSE(vm_->SignalMsi(1, 0x41));
  EXPECT_FALSE(vm_->SignalMsi(255, 0x41));
}

TEST_F(KvmTest, RoutesOfSintsAreGivenOnceEach) {
  ASSERT_OK(vm_->CreateIrqChip(Gpa(0xfeff'c000), Gpa(0xfeff'd000)));
  Start(std::to_array<uint8_t>({0xf4}));
  ASSERT_OK(vcpu_->EnableSynic2());
  ASSERT_OK_AND_ASSIGN(const uint32_t first, vm_->routing().AddHvSint(0, 2));
  EXPECT_EQ(first, kIoApicInputs);
  ASSERT_OK_AND_ASSIGN(const uint32_t second, vm_->routing().AddHvSint(0, 3));
  EXPECT_EQ(second, kIoApicInputs + 1);
  ASSERT_OK_AND_ASSIGN(const uint32_t again, vm_->routing().AddHvSint(0, 2));
  EXPECT_EQ(again, first);
  ASSERT_OK_AND_ASSIGN(EventFd raise, EventFd::Create());
  ASSERT_OK(vm_->AddIrqFd(raise.fd(), first));
  EXPECT_FALSE(vm_->AddIrqFd(raise.fd(), first).ok());
  ASSERT_OK(vm_->RemoveIrqFd(raise.fd(), first));
  EXPECT_OK(vm_->AddIrqFd(raise.fd(), first));
  EXPECT_OK(vm_->SetIrqLine(kIoApicInputs - 1, true));
}

TEST_F(KvmTest, AReservedMsiIsRaisedByItsEventFdOnceItHasAMessage) {
  ASSERT_OK(vm_->CreateIrqChip(Gpa(0xfeff'c000), Gpa(0xfeff'd000)));
  Start(std::to_array<uint8_t>({0xf4}));
  kvm_lapic_state apic{};
  ASSERT_EQ(::ioctl(vcpu_->fd(), KVM_GET_LAPIC, &apic), 0);
  apic.regs[0xf1] |= 1;  // software enable
  ASSERT_EQ(::ioctl(vcpu_->fd(), KVM_SET_LAPIC, &apic), 0);
  ASSERT_OK_AND_ASSIGN(const uint32_t first, vm_->routing().ReserveMsis(2));
  EXPECT_EQ(first, kIoApicInputs);
  ASSERT_OK_AND_ASSIGN(const uint32_t next, vm_->routing().ReserveMsis(1));
  EXPECT_EQ(next, first + 2);
  ASSERT_OK_AND_ASSIGN(EventFd raise, EventFd::Create());
  ASSERT_OK(vm_->AddIrqFd(raise.fd(), first + 1));
  const MsiRoute route{first + 1, 0xfee0'0000, 0x41};
  ASSERT_OK(vm_->routing().SetMsis(std::span(&route, 1)));
  raise.Signal();
  // The kernel may hand it to a worker.
  for (int i = 0; i < 1000 && apic.regs[0x200 + 0x41 / 32 * 0x10] == 0; ++i) {
    ::usleep(1000);
    ASSERT_EQ(::ioctl(vcpu_->fd(), KVM_GET_LAPIC, &apic), 0);
  }
  EXPECT_EQ(apic.regs[0x200 + 0x41 / 32 * 0x10], 2);  // IRR
  const MsiRoute bad{kIoApicInputs - 1, 0xfee0'0000, 0x41};
  EXPECT_THAT(vm_->routing().SetMsis(std::span(&bad, 1)), StatusIs(absl::StatusCode::kInvalidArgument, "not reserved"));
}

TEST_F(KvmTest, ADoorbellAddressSignalsItsEventFdWithoutAnExitUntilItIsRemoved) {
  ASSERT_OK_AND_ASSIGN(EventFd bell, EventFd::Create());
  const Gpa address(0x10'0000);  // the first beyond RAM
  ASSERT_OK(vm_->AddMmioEventFd(bell.fd(), address));
  EXPECT_FALSE(vm_->AddMmioEventFd(bell.fd(), address).ok());
  // mov ax, 0xffff; mov ds, ax; mov [0x10], al; mov [0x10], ax; out 0x10; mov [0x10], al
  Start(std::to_array<uint8_t>({0xb8, 0xff, 0xff, 0x8e, 0xd8, 0xa2, 0x10, 0x00, 0xa3, 0x10, 0x00, 0xe6, 0x10, 0xa2, 0x10, 0x00}));
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  ASSERT_EQ(vcpu_->run().exit_reason, uint32_t{KVM_EXIT_IO});
  EXPECT_EQ(bell.Drain(), 2u);
  ASSERT_OK(vm_->RemoveMmioEventFd(bell.fd(), address));
  ASSERT_EQ(vcpu_->Run(), RunResult::kExit);
  EXPECT_EQ(vcpu_->run().exit_reason, uint32_t{KVM_EXIT_MMIO});
}

TEST_F(KvmTest, TheRoutingTableIsBounded) {
  ASSERT_OK(vm_->CreateIrqChip(Gpa(0xfeff'c000), Gpa(0xfeff'd000)));
  uint32_t vcpus = 0;
  absl::StatusOr<uint32_t> gsi = vm_->routing().AddHvSints(0);
  for (; gsi.ok(); gsi = vm_->routing().AddHvSints(++vcpus)) EXPECT_EQ(*gsi, kIoApicInputs + kHvSints * vcpus);
  EXPECT_THAT(gsi, StatusIs(absl::StatusCode::kResourceExhausted, "2040 of 2048 routes"));
  EXPECT_THAT(vm_->routing().AddHvSints(0), StatusIs(absl::StatusCode::kAlreadyExists, "vCPU 0"));
  // What is left is still to be had, and not one more.
  for (uint32_t sint = 0; sint < kMaxRoutes - 2040; ++sint) EXPECT_OK(vm_->routing().AddHvSint(vcpus, sint));
  EXPECT_THAT(vm_->routing().AddHvSint(vcpus, 15), StatusIs(absl::StatusCode::kResourceExhausted, "2048 of 2048 routes"));
}

TEST_F(KvmTest, ARefusedMsrIsNamed) {
  Start(std::to_array<uint8_t>({0xf4}));
  const kvm_msr_entry msr{.index = 0xdeadbeef, .reserved = 0, .data = 0};
  EXPECT_THAT(vcpu_->SetMsrs(std::span(&msr, 1)), StatusIs(absl::StatusCode::kFailedPrecondition, "0xdeadbeef"));
}

// Not INVALID_ARGUMENT, which is said of a person's input.
TEST_F(KvmTest, WhatThisKvmDoesNotDoIsAFailedPrecondition) {
  EXPECT_THAT(vm_->CreateVcpu(1u << 20), StatusIs(absl::StatusCode::kFailedPrecondition, "create vCPU 1048576"));
}

TEST_F(KvmTest, ProbeFindsWhatOpenRequiresAndTheHostMapping) {
  ASSERT_OK_AND_ASSIGN(const Capabilities found, ProbeCapabilities());
  for (const Capability& capability : found.capabilities) {
    EXPECT_TRUE(!capability.required || capability.value > 0) << capability.name;
  }
  EXPECT_EQ(found.host_mapping.available, vm_->HasNestedPaging());
  EXPECT_FALSE(found.attributes_private.reason.empty());
}

TEST(KvmSystemTest, OpenNamesTheReasonWhereThereIsNoKvm) {
  EXPECT_THAT(System::Open("/dev/there-is-no-kvm"), StatusIs(absl::StatusCode::kNotFound, "this host has no KVM"));
}

TEST(KvmSystemTest, OpenRefusesAFileThatIsNoKvm) {
  EXPECT_THAT(System::Open("/dev/null"), StatusIs(absl::StatusCode::kFailedPrecondition, "API version"));
}

}  // namespace
}  // namespace vmm::kvm
