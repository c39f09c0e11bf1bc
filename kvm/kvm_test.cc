// Real guest instructions on a real KVM: what the wrapper says happened is what the guest did.

#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <thread>

#include "base/event_fd.h"
#include "base/status_matchers.h"
#include "kvm/capabilities.h"
#include "kvm/system.h"
#include "memory/guest_memory.h"

namespace vmm::kvm {
namespace {

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
  EXPECT_TRUE(found.host_mapping.available);
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
