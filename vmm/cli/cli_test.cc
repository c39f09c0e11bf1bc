#include "vmm/cli/cli.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/log.h"

namespace vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class CliTest : public ::testing::Test {
 protected:
  CliTest() : out_(::memfd_create("out", 0)), error_(::memfd_create("error", 0)) {
    hooks_.run = [this](const VmConfig& config) {
      ran_ = config.name;
      return 42;
    };
    hooks_.check = [this] { return report_; };
    hooks_.device = [this](absl::string_view kind, int argc, char** argv) {
      ran_ = std::string(kind);
      for (int i = 0; i < argc; ++i) ran_ += std::string(" ") + argv[i];
      return 0;
    };
    hooks_.kernel_headers = "6.12";
    hooks_.out_fd = out_;
    hooks_.error_fd = error_;
    std::string pattern = ::testing::TempDir() + "/cli.XXXXXX";
    folder_ = ::mkdtemp(pattern.data());
    std::FILE* const kernel = std::fopen((folder_ + "/kernel").c_str(), "wb");
    std::fputs("kernel", kernel);
    std::fclose(kernel);
  }
  ~CliTest() override {
    ::close(out_);
    ::close(error_);
    ConfigureLog({});
  }
  int Run(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "vmm");
    std::vector<char*> argv;
    for (std::string& argument : arguments) argv.push_back(argument.data());
    return RunCli(static_cast<int>(argv.size()), argv.data(), hooks_);
  }
  static std::string Written(int fd) {
    char buffer[65536];
    const ssize_t count = ::pread(fd, buffer, sizeof(buffer), 0);
    return std::string(buffer, count > 0 ? static_cast<size_t>(count) : 0);
  }
  [[nodiscard]] std::string Kernel() const { return "--boot.kernel=" + folder_ + "/kernel"; }

  CliHooks hooks_;
  HostReport report_;
  std::string ran_;
  std::string folder_;
  const int out_;
  const int error_;
};

TEST_F(CliTest, RunHandsTheConfigurationOverAndReturnsItsStatus) {
  EXPECT_EQ(Run({"run", Kernel(), "--memory.size_mib=16", "--name=box"}), 42);
  EXPECT_EQ(ran_, "box");
  EXPECT_EQ(Written(out_) + Written(error_), "");
}

TEST_F(CliTest, RunSetsUpTheLogFirst) {
  hooks_.run = [](const VmConfig&) {
    Log(LogLevel::kDebug, "test", "hello");
    return 0;
  };
  EXPECT_EQ(Run({"run", Kernel(), "--memory.size_mib=16", "--log-level=debug", "--log-format=json",
                 "--log-file=" + folder_ + "/log"}),
            0);
  const int fd = ::open((folder_ + "/log").c_str(), O_RDONLY);
  EXPECT_THAT(Written(fd), HasSubstr("\"level\":\"debug\",\"component\":\"test\",\"message\":\"hello\"}"));
  ::close(fd);
}

TEST_F(CliTest, ValidatePrintsTheEffectiveConfigurationAndRunsNothing) {
  EXPECT_EQ(Run({"validate", Kernel(), "--memory.size_mib=16"}), 0);
  EXPECT_EQ(Written(out_), "");
  EXPECT_EQ(Run({"validate", Kernel(), "--memory.size_mib=16", "--print"}), 0);
  EXPECT_THAT(Written(out_), HasSubstr("size_mib: 16"));
  EXPECT_EQ(ran_, "");
}

TEST_F(CliTest, CheckSaysByItsStatusWhetherMachinesCanRun) {
  EXPECT_EQ(Run({"check"}), 8);
  EXPECT_THAT(Written(out_), StartsWith("NOT READY"));
  report_.kvm.present = report_.kvm.accessible = true;
  report_.kvm.api_version = 12;
  EXPECT_EQ(Run({"check", "--json"}), 0);
  EXPECT_THAT(Written(out_), HasSubstr("\"ready\": true"));
}

TEST_F(CliTest, DeviceGetsTheArgumentsAfterItsKind) {
  EXPECT_EQ(Run({"device", "serial", "--fd", "3"}), 0);
  EXPECT_EQ(ran_, "serial --fd 3");
}

TEST_F(CliTest, VersionAndHelpArePrinted) {
  EXPECT_EQ(Run({"version"}), 0);
  EXPECT_THAT(Written(out_), StartsWith("vmm 0."));
  EXPECT_THAT(Written(out_), HasSubstr("kernel headers: 6.12\n"));
  EXPECT_EQ(Run({"help", "exit-status"}), 0);
  EXPECT_THAT(Written(out_), HasSubstr("    34  triple-fault"));
}

TEST_F(CliTest, OutputThatCannotBeWrittenIsAnError) {
  hooks_.out_fd = ::open("/dev/full", O_WRONLY);
  EXPECT_EQ(Run({"version"}), 40);
  EXPECT_THAT(Written(error_), StartsWith("vmm: write standard output: No space left"));
  ::close(hooks_.out_fd);
}

TEST_F(CliTest, EveryProblemIsALineOfItsOwn) {
  EXPECT_EQ(Run({"run", "--memory.size_mib=1", "--processors.count=99"}), 4);
  EXPECT_EQ(Written(error_),
            "vmm: --memory.size_mib=1: memory.size_mib: must be 16 to 1048576 (1)\n"
            "vmm: --processors.count=99: processors.count: must be 1 to 64 (99)\n"
            "vmm: flags: boot.kernel: is missing: name a kernel image\n");
}

}  // namespace
}  // namespace vmm
