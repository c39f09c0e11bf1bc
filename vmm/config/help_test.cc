#include "vmm/config/help.h"

#include <set>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <google/protobuf/descriptor.h>

#include "vmm/config/config.pb.h"
#include "vmm/config/golden_file.h"

namespace vmm {
namespace {

bool g_update = false;

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using ::testing::HasSubstr;

void Collect(const Descriptor& message, const std::string& prefix, std::set<std::string>& paths) {
  for (int i = 0; i < message.field_count(); ++i) {
    const FieldDescriptor& field = *message.field(i);
    paths.insert(prefix + field.name());
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      Collect(*field.message_type(), prefix + field.name() + (field.is_repeated() ? "[]." : "."), paths);
    }
  }
}

TEST(HelpTest, EveryFieldAndEnumValueHasAComment) {
  for (const FieldHelp& field : ConfigFields()) {
    EXPECT_STRNE(field.comment, "") << field.path;
    for (size_t i = 0; i < field.value_count; ++i) {
      EXPECT_STRNE(field.values[i].comment, "") << field.path << " " << field.values[i].name;
    }
  }
}

TEST(HelpTest, TableHoldsExactlyTheFieldsOfTheSchema) {
  std::set<std::string> schema, table;
  Collect(*config::VmConfig::descriptor(), "", schema);
  for (const FieldHelp& field : ConfigFields()) table.insert(field.path);
  EXPECT_EQ(table, schema);
  EXPECT_EQ(table.size(), ConfigFields().size());
}

// What message_builder.cc can set: a field of another type must come with code for it.
TEST(HelpTest, SchemaUsesOnlyTypesThatTheLoaderKnows) {
  const std::set<std::string> known = {"string", "bool", "enum", "message", "uint32", "uint64"};
  for (const FieldHelp& field : ConfigFields()) EXPECT_TRUE(known.contains(field.type)) << field.path;
}

TEST(HelpTest, TextNamesTypeCommentAndValues) {
  const std::string text = ConfigHelpText("memory");
  EXPECT_THAT(text, HasSubstr("memory: The guest's RAM.\n"));
  EXPECT_THAT(text, HasSubstr("  memory.size_mib  (uint64)\n      Guest RAM in MiB, 16 to 1048576. Required.\n"));
  EXPECT_THAT(text, HasSubstr("          SIZE_2M: Reserved pages of 2 MiB.\n"));
  EXPECT_THAT(text, Not(HasSubstr("boot.kernel")));
  EXPECT_EQ(ConfigHelpText("nonsense"), "");
}

TEST(HelpTest, ReferencePageIsUpToDate) {
  EXPECT_EQ(CheckGoldenFile("vmm/config/reference.md", ConfigHelpMarkdown(), g_update, "//vmm/config:help_test"), "");
}

}  // namespace
}  // namespace vmm

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  vmm::g_update = vmm::WantsGoldenUpdate(argc, argv);
  return RUN_ALL_TESTS();
}
