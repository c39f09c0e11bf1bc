// Build-time only: config.descriptors.bin to the C++ table behind help.h.
//
//   help_generator DESCRIPTORS MESSAGE > table.cc
#include <cstdio>
#include <string>
#include <vector>

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"

namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::EnumDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::SourceLocation;

template <typename T>
std::string Comment(const T& described) {
  SourceLocation location;
  if (!described.GetSourceLocation(&location)) return "";
  // The comment on top of the field alone: a file's or a section's stands apart by an empty line.
  const std::vector<std::string> words =
      absl::StrSplit(location.leading_comments, absl::ByAnyChar(" \n"), absl::SkipEmpty());
  return absl::StrJoin(words, " ");
}

std::string Literal(const std::string& text) { return absl::StrCat("\"", absl::CEscape(text), "\""); }

class Generator final {
 public:
  void Walk(const Descriptor& message, const std::string& prefix) {
    for (int i = 0; i < message.field_count(); ++i) {
      const FieldDescriptor& field = *message.field(i);
      const std::string path = prefix + field.name();
      std::string values = "nullptr, 0";
      if (field.cpp_type() == FieldDescriptor::CPPTYPE_ENUM) {
        const EnumDescriptor& type = *field.enum_type();
        const std::string name = absl::StrCat("kValues", enum_count_++);
        absl::StrAppend(&enums_, "constexpr EnumValueHelp ", name, "[] = {\n");
        for (int v = 0; v < type.value_count(); ++v) {
          absl::StrAppend(&enums_, "    {", Literal(type.value(v)->name()), ", ", Literal(Comment(*type.value(v))), "},\n");
        }
        absl::StrAppend(&enums_, "};\n");
        values = absl::StrCat(name, ", ", type.value_count());
      }
      absl::StrAppend(&fields_, "    {", Literal(path), ", ", Literal(field.cpp_type_name()), ", ",
                      field.is_repeated() ? "true" : "false", ", ", Literal(Comment(field)), ", ", values, "},\n");
      // A list of messages is one flag: the path into it is for reading alone.
      if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) Walk(*field.message_type(), path + (field.is_repeated() ? "[]." : "."));
    }
  }
  [[nodiscard]] std::string Source() const {
    return absl::StrCat("// Generated from the schema by help_generator.cc.\n#include \"vmm/config/help.h\"\n\n",
                        "namespace vmm {\nnamespace {\n", enums_, "constexpr FieldHelp kFields[] = {\n", fields_,
                        "};\n}  // namespace\n\n",
                        "absl::Span<const FieldHelp> ConfigFields() { return kFields; }\n\n}  // namespace vmm\n");
  }

 private:
  std::string enums_;
  std::string fields_;
  int enum_count_ = 0;
};

int Fail(const char* what) {
  std::fprintf(stderr, "help_generator: %s\n", what);
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return Fail("usage: help_generator DESCRIPTORS MESSAGE");
  std::FILE* const file = std::fopen(argv[1], "rb");
  if (file == nullptr) return Fail("cannot open the descriptors");
  std::string bytes;
  char buffer[4096];
  for (size_t count = 0; (count = std::fread(buffer, 1, sizeof(buffer), file)) != 0;) bytes.append(buffer, count);
  std::fclose(file);
  google::protobuf::FileDescriptorSet set;
  if (!set.ParseFromString(bytes)) return Fail("cannot parse the descriptors");
  DescriptorPool pool;
  for (const auto& proto : set.file()) {
    if (pool.BuildFile(proto) == nullptr) return Fail("cannot build the descriptors");
  }
  const Descriptor* const message = pool.FindMessageTypeByName(argv[2]);
  if (message == nullptr) return Fail("no such message");
  Generator generator;
  generator.Walk(*message, "");
  const std::string source = generator.Source();
  return std::fwrite(source.data(), 1, source.size(), stdout) == source.size() ? 0 : Fail("cannot write");
}
