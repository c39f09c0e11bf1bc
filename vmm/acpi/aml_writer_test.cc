#include "vmm/acpi/aml_writer.h"

#include <gtest/gtest.h>

namespace vmm {
namespace {

using std::string_literals::operator""s;

TEST(AmlWriterTest, IntegersTakeTheirShortestForm) {
  EXPECT_EQ(AmlInteger(0), "\x00"s);
  EXPECT_EQ(AmlInteger(1), "\x01"s);
  EXPECT_EQ(AmlInteger(2), "\x0a\x02"s);
  EXPECT_EQ(AmlInteger(0xff), "\x0a\xff"s);
  EXPECT_EQ(AmlInteger(0x100), "\x0b\x00\x01"s);
  EXPECT_EQ(AmlInteger(0xffff), "\x0b\xff\xff"s);
  EXPECT_EQ(AmlInteger(0x12345678), "\x0c\x78\x56\x34\x12"s);
  EXPECT_EQ(AmlInteger(0x1'0000'0000), "\x0e\x00\x00\x00\x00\x01\x00\x00\x00"s);
}

TEST(AmlWriterTest, PackageLengthsCountThemselves) {
  EXPECT_EQ(AmlPackageLength(0), "\x01"s);
  EXPECT_EQ(AmlPackageLength(0x3e), "\x3f"s);
  EXPECT_EQ(AmlPackageLength(0x3f), "\x41\x04"s);           // 0x41
  EXPECT_EQ(AmlPackageLength(0xffd), "\x4f\xff"s);          // 0xfff
  EXPECT_EQ(AmlPackageLength(0xffe), "\x81\x00\x01"s);      // 0x1001
  EXPECT_EQ(AmlPackageLength(0xffffc), "\x8f\xff\xff"s);    // 0xfffff
  EXPECT_EQ(AmlPackageLength(0xffffd), "\xc1\x00\x00\x01"s);  // 0x100001
}

TEST(AmlWriterTest, NamesDevicesAndScopes) {
  EXPECT_EQ(AmlName("_HID", AmlString("ACPI0007")), "\x08_HID\x0d" "ACPI0007\x00"s);
  EXPECT_EQ(AmlDevice("C000", AmlName("_UID", AmlInteger(0))), "\x5b\x82\x0b" "C000\x08_UID\x00"s);
  EXPECT_EQ(AmlRootScope("_SB_", "\xff"), "\x10\x07\\_SB_\xff"s);
}

}  // namespace
}  // namespace vmm
