#include "vmm/cli/check_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

HostReport GoodHost() {
  HostReport report;
  report.kernel_release = "6.12.1";
  report.cpu_vendor = "AuthenticAMD";
  report.cpu_model = "EPYC";
  report.processors = 2;
  report.nested = true;
  report.kvm.present = true;
  report.kvm.accessible = true;
  report.kvm.api_version = 12;
  report.kvm.capabilities = {{"KVM_CAP_IRQFD", 1, "interrupts of devices", true},
                             {"KVM_CAP_MEMORY_ATTRIBUTES", 0, "way B", false}};
  report.protections = {{'A', "all of read, write and execute", false, "the kernel lacks it"},
                        {'C', "no access, or read and execute", true, "any KVM has it", "HOST_MAPPING"}};
  report.sandbox = {{"seccomp", true, "filters", true}, {"landlock", false, "not in this kernel", false}};
  report.huge_pages = {{2ULL << 20, 8, 5}};
  report.transparent_huge_pages = "madvise";
  report.memory_bytes = 1024ULL << 20;
  report.memory_available_bytes = 512ULL << 20;
  return report;
}

TEST(CheckReportTest, TextStartsWithTheVerdict) {
  EXPECT_EQ(CheckReportText(GoodHost()),
            "READY: this host can run microVMs; page protections by way C: no access, or read and execute.\n"
            "\n"
            "Host\n"
            "  kernel         6.12.1\n"
            "  processor      AuthenticAMD, EPYC\n"
            "  processors     2\n"
            "  nested         yes: this host is a guest itself, and exits are slow\n"
            "  memory         1024 MiB, 512 MiB available\n"
            "  pages of 2 MiB 5 of 8 free\n"
            "  transparent    madvise\n"
            "\n"
            "KVM\n"
            "  /dev/kvm       present and accessible\n"
            "  API version    12\n"
            "  KVM_CAP_IRQFD                             1  required by interrupts of devices\n"
            "  KVM_CAP_MEMORY_ATTRIBUTES                 0  wanted by way B\n"
            "\n"
            "Page protections (best first)\n"
            "  A  no   all of read, write and execute (the kernel lacks it)\n"
            "  C  yes  HOST_MAPPING: no access, or read and execute (any KVM has it)\n"
            "  hyperv.vsm.protection AUTO is way C on this host. Execution cannot be denied to a page that may be read:\n"
            "  a guest that asks for it is refused, or gets more than it asked for where hyperv.vsm.unenforceable is ROUND.\n"
            "\n"
            "Sandbox\n"
            "  seccomp        yes  filters\n"
            "  landlock       no   not in this kernel (optional)\n");
}

TEST(CheckReportTest, JsonHasStableKeys) {
  EXPECT_EQ(CheckReportJson(GoodHost()), R"({
  "ready": true,
  "missing": [],
  "protection": "C",
  "kernel": "6.12.1",
  "cpu": {"vendor": "AuthenticAMD", "model": "EPYC", "processors": 2, "nested": true},
  "memory": {"bytes": 1073741824, "available_bytes": 536870912, "transparent_huge_pages": "madvise", "huge_pages": [{"page_bytes": 2097152, "total": 8, "free": 5}]},
  "kvm": {"present": true, "accessible": true, "problem": "", "api_version": 12, "capabilities": [
    {"name": "KVM_CAP_IRQFD", "value": 1, "needed_by": "interrupts of devices", "required": true},
    {"name": "KVM_CAP_MEMORY_ATTRIBUTES", "value": 0, "needed_by": "way B", "required": false}]},
  "protections": [
    {"way": "A", "available": false, "choice": null, "gives": "all of read, write and execute", "reason": "the kernel lacks it"},
    {"way": "C", "available": true, "choice": "HOST_MAPPING", "gives": "no access, or read and execute", "reason": "any KVM has it"}],
  "sandbox": [
    {"name": "seccomp", "available": true, "required": true, "detail": "filters"},
    {"name": "landlock", "available": false, "required": false, "detail": "not in this kernel"}]
}
)");
}

TEST(CheckReportTest, WithoutKvmTheVerdictNamesTheCauseOnce) {
  HostReport report = GoodHost();
  report.kvm = {};
  EXPECT_THAT(CheckReportText(report), HasSubstr("NOT READY: this host cannot run microVMs as it is:\n"
                                                 "  - /dev/kvm is missing\n\n"));
  report.kvm.present = true;
  report.kvm.problem = "Permission denied";
  EXPECT_THAT(JudgeHost(report).missing, testing::ElementsAre("/dev/kvm cannot be opened: Permission denied"));
  EXPECT_THAT(CheckReportJson(report), HasSubstr("\"ready\": false,\n  \"missing\": [\"/dev/kvm cannot be opened"));
}

TEST(CheckReportTest, AMissingRequirementMakesTheHostNotReady) {
  HostReport report = GoodHost();
  report.kvm.capabilities[0].value = 0;
  report.sandbox[0].available = false;
  EXPECT_THAT(JudgeHost(report).missing,
              testing::ElementsAre("KVM_CAP_IRQFD is missing, needed by interrupts of devices",
                                   "the sandbox lacks seccomp: filters"));
  report = GoodHost();
  report.kvm.api_version = 11;
  EXPECT_FALSE(JudgeHost(report).ready);
}

TEST(CheckReportTest, WithoutAnyWayMachinesRunUnguarded) {
  HostReport report = GoodHost();
  report.protections.clear();
  EXPECT_TRUE(JudgeHost(report).ready);
  EXPECT_THAT(CheckReportText(report), HasSubstr("no way to protect pages"));
  EXPECT_THAT(CheckReportText(report), HasSubstr("A machine with hyperv.vsm does not start on this host.\n"));
  EXPECT_THAT(CheckReportJson(report), HasSubstr("\"protection\": null"));
}

TEST(CheckReportTest, TheVerdictIsWhatAutoChooses) {
  HostReport report = GoodHost();
  report.protections[0].available = true;  // the host has it, and no machine uses it
  EXPECT_EQ(JudgeHost(report).best_way, 'C');
  EXPECT_THAT(CheckReportText(report), HasSubstr("  A  yes  all of read, write and execute (the kernel lacks it)\n          No machine uses it yet.\n"));
  report.protections.insert(report.protections.begin() + 1, {'B', "no access", true, "a VM takes it", "PRIVATE_ATTRIBUTE"});
  EXPECT_EQ(JudgeHost(report).best_way, 'B');
  EXPECT_THAT(CheckReportText(report), HasSubstr("hyperv.vsm.protection AUTO is way B on this host"));
  EXPECT_THAT(CheckReportJson(report), HasSubstr("\"protection\": \"B\""));
}

TEST(CheckReportTest, ControlCharactersOfTheHostAreEscaped) {
  HostReport report = GoodHost();
  report.cpu_model = "a\x1b[2J\"";
  EXPECT_THAT(CheckReportText(report), Not(HasSubstr("\x1b")));
  EXPECT_THAT(CheckReportJson(report), HasSubstr("\"a\\u001b[2J\\\"\""));
}

}  // namespace
}  // namespace vmm
