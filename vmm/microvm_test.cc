// The library's contract with tiny guests: starts, ends, failures half way, and nothing left behind by any of them.
#include "vmm/microvm.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <filesystem>
#include <iterator>
#include <memory>
#include <span>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/owned_fd.h"
#include "base/status_matchers.h"
#include "memory/gpa.h"
#include "vmm/boot/fake_images.h"

namespace vmm {
namespace {

// 32-bit code, as PVH enters it.
constexpr uint8_t kPowerOff[] = {0x66, 0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, 0xeb, 0xfe};  // out 0x600, S5; jmp $
constexpr uint8_t kLoop[] = {0xeb, 0xfe};

size_t ThreadCount() {
  const std::filesystem::directory_iterator tasks("/proc/self/task");
  return static_cast<size_t>(std::distance(begin(tasks), end(tasks)));
}

class MicroVmTest : public testing::Test {
 protected:
  void SetUp() override {
    if (::access("/dev/kvm", R_OK | W_OK) != 0) GTEST_SKIP() << "no usable /dev/kvm";
    char folder[] = "/tmp/microvm_test.XXXXXX";
    ASSERT_NE(::mkdtemp(folder), nullptr);
    folder_ = folder;
    // The product lies beside this test and dispatches its device processes.
    executable_ = (std::filesystem::read_symlink("/proc/self/exe").parent_path() / "vmm").string();
    ASSERT_EQ(::access(executable_.c_str(), X_OK), 0) << executable_ << ": build //vmm";
    config_.memory.bytes = 64 * kMiB;
    config_.serial.output = SerialOutput::kNull;
  }
  // Whatever happened: no process, no zombie, no thread.
  void TearDown() override {
    if (folder_.empty()) return;
    EXPECT_EQ(::waitpid(-1, nullptr, WNOHANG), -1);
    EXPECT_EQ(errno, ECHILD);
    // A thread that has been joined may be in /proc for a moment.
    for (int i = 0; i < 100'000 && ThreadCount() > 1; ++i) ::sched_yield();
    EXPECT_EQ(ThreadCount(), 1u);
    std::filesystem::remove_all(folder_);
  }
  void Guest(std::span<const uint8_t> code) {
    ImageBytes image = FakeElf{}.Build();
    for (size_t i = 0; i < code.size(); ++i) image[FakeElf::kCodeOffset + 0x10 + i] = std::byte{code[i]};
    config_.boot.kernel = folder_ + "/kernel";
    const OwnedFd file(::open(config_.boot.kernel.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
    ASSERT_EQ(::write(file.get(), image.data(), image.size()), static_cast<ssize_t>(image.size()));
  }
  absl::StatusOr<std::unique_ptr<MicroVm>> Create() {
    return MicroVm::Create(config_, {.on_end = [this](const EndReport&) { ++ends_; }, .device_executable = executable_});
  }

  VmConfig config_;
  std::string folder_, executable_;
  std::atomic<int> ends_{0};
};

TEST_F(MicroVmTest, APowerOffOfTheGuestEndsTheMachineOnce) {
  Guest(kPowerOff);
  ASSERT_OK_AND_ASSIGN(const auto vm, Create());
  ASSERT_OK(vm->Start());
  EXPECT_EQ(vm->Wait().end, MachineEnd::kPoweredOff);
  EXPECT_EQ(vm->Wait().end, MachineEnd::kPoweredOff);
  EXPECT_EQ(ends_, 1);
  EXPECT_EQ(vm->stats().processors.at(0).pio_exits, 1u);
}

// The guest ends before the last processors have been started.
TEST_F(MicroVmTest, AGuestThatEndsAtOnceWithManyProcessors) {
  Guest(kPowerOff);
  config_.processors = 32;
  config_.serial.enabled = false;
  for (int round = 0; round < 5; ++round) {
    ASSERT_OK_AND_ASSIGN(const auto vm, Create());
    ASSERT_OK(vm->Start());
    EXPECT_EQ(vm->Wait().end, MachineEnd::kPoweredOff);
  }
  EXPECT_EQ(ends_, 5);
}

TEST_F(MicroVmTest, StopFromAnyThreadEndsAGuestThatLoops) {
  Guest(kLoop);
  config_.processors = 2;
  ASSERT_OK_AND_ASSIGN(const auto vm, Create());
  ASSERT_OK(vm->Start());
  std::thread one([&] { vm->Stop(); }), other([&] { vm->Stop(); });
  const EndReport report = vm->Wait();
  one.join();
  other.join();
  EXPECT_EQ(report.end, MachineEnd::kStopped);
  EXPECT_EQ(ends_, 1);
}

TEST_F(MicroVmTest, StopBeforeStartEndsTheMachineAsItStarts) {
  Guest(kLoop);
  ASSERT_OK_AND_ASSIGN(const auto vm, Create());
  vm->Stop();
  ASSERT_OK(vm->Start());
  EXPECT_EQ(vm->Wait().end, MachineEnd::kStopped);
  EXPECT_EQ(ends_, 1);
}

TEST_F(MicroVmTest, WaitForAMachineThatWasNeverStartedReturns) {
  Guest(kLoop);
  ASSERT_OK_AND_ASSIGN(const auto vm, Create());
  EXPECT_EQ(vm->Wait().end, MachineEnd::kStopped);
  EXPECT_EQ(ends_, 0);
}

TEST_F(MicroVmTest, ASecondStartIsRefusedAndChangesNothing) {
  Guest(kLoop);
  ASSERT_OK_AND_ASSIGN(const auto vm, Create());
  ASSERT_OK(vm->Start());
  EXPECT_THAT(vm->Start(), StatusIs(absl::StatusCode::kFailedPrecondition, "has been started before"));
  vm->Stop();
  EXPECT_EQ(vm->Wait().end, MachineEnd::kStopped);
}

TEST_F(MicroVmTest, TheDestructorEndsARunningMachine) {
  Guest(kLoop);
  ASSERT_OK_AND_ASSIGN(auto vm, Create());
  ASSERT_OK(vm->Start());
  vm.reset();
  EXPECT_EQ(ends_, 1);
}

TEST_F(MicroVmTest, AMissingKernelIsNotFound) {
  config_.boot.kernel = folder_ + "/nowhere";
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kNotFound, absl::StrCat("open kernel '", config_.boot.kernel, "'")));
}

TEST_F(MicroVmTest, AKernelThatIsAFifoIsRefusedWithoutWaitingForAWriter) {
  config_.boot.kernel = folder_ + "/fifo";
  ASSERT_EQ(::mkfifo(config_.boot.kernel.c_str(), 0600), 0);
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kInvalidArgument, "not a regular file"));
}

TEST_F(MicroVmTest, AnInitramfsThatDoesNotFitIsResourceExhausted) {
  Guest(kLoop);
  config_.boot.initramfs = folder_ + "/initramfs";
  const OwnedFd file(::open(config_.boot.initramfs.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  ASSERT_EQ(::ftruncate(file.get(), static_cast<off_t>(kGiB)), 0);
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kResourceExhausted, "load initramfs"));
}

TEST_F(MicroVmTest, ADeviceExecutableThatIsNoneIsNotFound) {
  Guest(kLoop);
  executable_ = folder_ + "/nowhere";
  EXPECT_THAT(Create(), StatusIs(absl::StatusCode::kNotFound, "open device executable"));
}

TEST_F(MicroVmTest, ADeviceExecutableThatDoesNotAnswerIsReported) {
  Guest(kLoop);
  executable_ = "/bin/true";
  const auto vm = Create();
  ASSERT_FALSE(vm.ok());
  EXPECT_NE(std::string(vm.status().message()).find("start device 'serial'"), std::string::npos) << vm.status();
}

TEST_F(MicroVmTest, WithVtl1TheStatsSayHowPagesAreProtectedAndHaveEachLevelOfAProcessor) {
  Guest(kPowerOff);
  config_.hyperv.enabled = true;
  for (const bool rounds : {false, true}) {
    config_.hyperv.vsm = true;
    config_.hyperv.round_unenforceable = rounds;
    ASSERT_OK_AND_ASSIGN(const auto vm, Create());
    ASSERT_OK(vm->Start());
    EXPECT_EQ(vm->Wait().end, MachineEnd::kPoweredOff);
    const MicroVmStats stats = vm->stats();
    ASSERT_TRUE(stats.protections.has_value());
    EXPECT_TRUE(stats.protections->way == 'B' || stats.protections->way == 'C') << stats.protections->way;
    EXPECT_EQ(stats.protections->rounds, rounds);
    EXPECT_EQ(stats.protections->protected_pages, 0u);
    ASSERT_EQ(stats.processors.at(0).intercepts.size(), 1u);
    EXPECT_EQ(stats.processors.at(0).intercepts[0].told(), 0u);
  }
  config_.hyperv.vsm = false;
  ASSERT_OK_AND_ASSIGN(const auto vm, Create());
  EXPECT_FALSE(vm->stats().protections.has_value());
  EXPECT_TRUE(vm->stats().processors.at(0).intercepts.empty());
}

TEST_F(MicroVmTest, AWayToProtectPagesIsTheOneThatWasAskedForOrAnError) {
  Guest(kPowerOff);
  config_.hyperv.enabled = config_.hyperv.vsm = true;
  config_.hyperv.protection = VsmProtection::kHostMapping;
  {
    ASSERT_OK_AND_ASSIGN(const auto vm, Create());
    EXPECT_EQ(vm->stats().protections->way, 'C');
  }
  config_.hyperv.protection = VsmProtection::kPrivateAttribute;
  const auto vm = Create();
  if (vm.ok()) {
    EXPECT_EQ((*vm)->stats().protections->way, 'B');
  } else {
    EXPECT_THAT(vm, StatusIs(absl::StatusCode::kFailedPrecondition, "as hyperv.vsm.protection says: this kernel makes no VM"));
  }
}

TEST_F(MicroVmTest, TheSerialFileIsWrittenFromItsStart) {
  Guest(kPowerOff);
  config_.serial.output = SerialOutput::kFile;
  config_.serial.path = folder_ + "/serial";
  {
    const OwnedFd file(::open(config_.serial.path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    ASSERT_EQ(::write(file.get(), "old", 3), 3);
  }
  ASSERT_OK_AND_ASSIGN(const auto vm, Create());
  ASSERT_OK(vm->Start());
  EXPECT_EQ(vm->Wait().end, MachineEnd::kPoweredOff);
  EXPECT_EQ(std::filesystem::file_size(config_.serial.path), 0u);
}

}  // namespace
}  // namespace vmm
