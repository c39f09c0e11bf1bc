// Overlay pages as a guest on a real KVM sees them: memory/guest_view.h below kvm/.

#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>
#include <memory>
#include <span>
#include <thread>

#include "base/status_matchers.h"
#include "kvm/system.h"
#include "kvm/uapi.h"
#include "kvm/vcpu.h"
#include "kvm/vm.h"
#include "memory/gpa.h"
#include "memory/guest_memory.h"
#include "memory/guest_ram.h"
#include "memory/guest_view.h"
#include "memory/layout.h"
#include "memory/ram_mapping.h"

namespace vmm {
namespace {

using kvm::RunResult;

constexpr Gpfn kPage{5};  // what the programs below call 0x5000
constexpr uint64_t kRamBytes = 4 * kMiB;

class GuestViewKvmTest : public testing::TestWithParam<HugePages> {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    ASSERT_OK_AND_ASSIGN(system_, kvm::System::Open());
    ASSERT_OK_AND_ASSIGN(const MemoryLayout layout, MemoryLayout::Create(kRamBytes));
    ASSERT_OK_AND_ASSIGN(const auto ram, GuestRam::Create({.bytes = kRamBytes, .huge_pages = GetParam()}));
    ASSERT_OK_AND_ASSIGN(memory_, GuestMemory::Create(*ram, layout));
    ASSERT_OK_AND_ASSIGN(view_, GuestView::Create(*ram, layout, 2));
    ASSERT_OK_AND_ASSIGN(vm_, system_->CreateVm());
    const RamMapping& mapping = view_->UnsafeMappings()[0];
    ASSERT_OK(vm_->SetMemorySlot(0, mapping.range.start, mapping.host, mapping.range.bytes));
    ASSERT_TRUE(memory_->Fill(Gpa(kPage), std::byte{0x11}, kPageBytes));
  }

  // Real mode code, which is written to RAM at 0x1000, entered at `entry`.
  template <size_t N>
  void Start(const std::array<uint8_t, N>& code, uint64_t entry = 0x1000) {
    ASSERT_TRUE(memory_->Write(Gpa(0x1000), std::as_bytes(std::span(code))));
    ASSERT_OK_AND_ASSIGN(vcpu_, vm_->CreateVcpu(0));
    ASSERT_OK_AND_ASSIGN(kvm_sregs sregs, vcpu_->GetSregs());
    sregs.cs.base = 0;
    sregs.cs.selector = 0;
    ASSERT_OK(vcpu_->SetSregs(sregs));
    kvm_regs regs{};
    regs.rip = entry;
    regs.rflags = 2;
    ASSERT_OK(vcpu_->SetRegs(regs));
  }

  std::unique_ptr<ViewOverlay> NewPage(uint8_t content) {
    auto page = view_->NewPage();
    EXPECT_OK(page.status());
    std::memset((*page)->data(), content, kPageBytes);
    return *std::move(page);
  }
  uint8_t InRam() {
    uint8_t value = 0;
    EXPECT_TRUE(memory_->ReadObject(Gpa(kPage), value));
    return value;
  }
  // Runs to the next port write, which is to be to this port.
  uint8_t RunToPort(uint16_t port) {
    EXPECT_EQ(vcpu_->Run(), RunResult::kExit);
    EXPECT_EQ(vcpu_->run().exit_reason, uint32_t{KVM_EXIT_IO});
    EXPECT_EQ(vcpu_->run().io.port, port);
    return vcpu_->io_data().size() == 1 ? static_cast<uint8_t>(vcpu_->io_data()[0]) : 0;
  }

  std::unique_ptr<kvm::System> system_;
  std::unique_ptr<GuestMemory> memory_;
  std::unique_ptr<GuestView> view_;  // outlives the VM
  std::unique_ptr<kvm::Vm> vm_;
  std::unique_ptr<kvm::Vcpu> vcpu_;
};

// mov al, [0x5000]; out 0x10, al; mov al, 0x77; mov [0x5000], al; out 0x11, al; and again
constexpr auto kReadThenWrite =
    std::to_array<uint8_t>({0xa0, 0x00, 0x50, 0xe6, 0x10, 0xb0, 0x77, 0xa2, 0x00, 0x50, 0xe6, 0x11, 0xeb, 0xf2});
constexpr uint64_t kStore = 0x1007;

TEST_P(GuestViewKvmTest, TheGuestReadsAndWritesTheOverlayAndFindsItsRamAfterwards) {
  Start(kReadThenWrite);
  EXPECT_EQ(RunToPort(0x10), 0x11);
  const auto page = NewPage(0xaa);
  ASSERT_TRUE(page->Place(kPage, ViewAccess::kReadWrite));
  RunToPort(0x11);
  EXPECT_EQ(page->data()[0], std::byte{0x77});
  EXPECT_EQ(InRam(), 0x11);
  page->data()[0] = std::byte{0xab};
  EXPECT_EQ(RunToPort(0x10), 0xab);
  page->Remove();
  RunToPort(0x11);
  EXPECT_EQ(InRam(), 0x77);
  EXPECT_EQ(page->data()[0], std::byte{0xab});
  EXPECT_EQ(RunToPort(0x10), 0x77);
}

TEST_P(GuestViewKvmTest, AWriteToAReadOnlyOverlayIsAMemoryFaultAtTheStore) {
  Start(kReadThenWrite);
  const auto page = NewPage(0xaa);
  for (const ViewAccess access : {ViewAccess::kRead, ViewAccess::kReadExecute}) {
    ASSERT_TRUE(page->Place(kPage, access));
    EXPECT_EQ(RunToPort(0x10), 0xaa);
    ASSERT_EQ(vcpu_->Run(), RunResult::kMemoryFault);
    EXPECT_TRUE(view_->has_read_only_overlay());
    ASSERT_OK_AND_ASSIGN(const kvm_regs regs, vcpu_->GetRegs());
    EXPECT_EQ(regs.rip, kStore);
    // Again, and again no further.
    ASSERT_EQ(vcpu_->Run(), RunResult::kMemoryFault);
    EXPECT_EQ(page->data()[0], std::byte{0xaa});
    EXPECT_EQ(InRam(), 0x11);
    page->Remove();
    RunToPort(0x11);
    EXPECT_EQ(InRam(), 0x77);
    ASSERT_TRUE(memory_->Fill(Gpa(kPage), std::byte{0x11}, kPageBytes));
  }
}

TEST_P(GuestViewKvmTest, CodeRunsFromAnOverlayAndChangesWithIt) {
  const auto one = NewPage(0x90);
  const auto other = NewPage(0x90);
  // out 0x12, al; jmp back to it
  const auto loop = [](ViewOverlay& page, uint8_t port) {
    const auto code = std::to_array<uint8_t>({0xe6, port, 0xeb, 0xfc});
    std::memcpy(page.data(), code.data(), code.size());
  };
  loop(*one, 0x12);
  loop(*other, 0x13);
  ASSERT_TRUE(one->Place(kPage, ViewAccess::kReadExecute));
  Start(kReadThenWrite, Gpa(kPage).raw());
  RunToPort(0x12);
  RunToPort(0x12);
  ASSERT_TRUE(other->Place(kPage, ViewAccess::kReadExecute));
  RunToPort(0x13);
  other->Remove();
  RunToPort(0x12);
}

TEST_P(GuestViewKvmTest, ADroppedPageComesBackAsItWas) {
  Start(kReadThenWrite);
  EXPECT_EQ(RunToPort(0x10), 0x11);
  RunToPort(0x11);
  EXPECT_TRUE(view_->DropPage(kPage));
  EXPECT_EQ(RunToPort(0x10), 0x77);
  EXPECT_TRUE(view_->DropPage(Gpfn(1)));  // the code
  RunToPort(0x11);
}

// A processor that reads the page all the time sees RAM or the overlay, never nothing and never a fault.
TEST_P(GuestViewKvmTest, ARunningProcessorSeesOneOrTheOther) {
  // mov al, [0x5000]; cmp al, 0x11; je back; cmp al, 0xaa; je back; out 0x13, al
  Start(std::to_array<uint8_t>({0xa0, 0x00, 0x50, 0x3c, 0x11, 0x74, 0xf9, 0x3c, 0xaa, 0x74, 0xf5, 0xe6, 0x13}));
  struct sigaction action{};
  action.sa_handler = [](int) {};
  ASSERT_EQ(::sigaction(SIGRTMIN, &action, nullptr), 0);
  RunResult result = RunResult::kError;
  std::thread processor([&] { result = vcpu_->Run(); });
  const auto page = NewPage(0xaa);
  for (int round = 0; round < 300; ++round) {
    EXPECT_TRUE(page->Place(kPage, static_cast<ViewAccess>(round % 3)));
    if (round % 4 == 0) {
      EXPECT_TRUE(view_->DropPage(kPage));
    }
    if (round % 2 == 0) page->Remove();
  }
  vcpu_->RequestExit();
  ::pthread_kill(processor.native_handle(), SIGRTMIN);
  processor.join();
  EXPECT_EQ(result, RunResult::kInterrupted);
}

INSTANTIATE_TEST_SUITE_P(HugePages, GuestViewKvmTest, testing::Values(HugePages::kNone, HugePages::kTransparent),
                         [](const auto& info) { return info.param == HugePages::kNone ? "None" : "Transparent"; });

}  // namespace
}  // namespace vmm
