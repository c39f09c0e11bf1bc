#include "vmm/config/message_builder.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <set>
#include <utility>
#include <vector>

#include <google/protobuf/descriptor.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "vmm/config/suggest.h"

namespace vmm {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::EnumDescriptor;
using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

std::string Join(absl::string_view path, absl::string_view name) {
  return path.empty() ? std::string(name) : absl::StrCat(path, ".", name);
}

std::string UnknownField(const Descriptor& message, absl::string_view name) {
  std::vector<std::string> names;
  for (int i = 0; i < message.field_count(); ++i) names.push_back(message.field(i)->name());
  return absl::StrCat("no such field", DidYouMean(name, names));
}

std::string EnumNames(const EnumDescriptor& type) {
  std::vector<std::string> names;
  for (int i = 0; i < type.value_count(); ++i) names.push_back(type.value(i)->name());
  return absl::StrJoin(names, ", ");
}

absl::string_view KindName(NodeKind kind) {
  switch (kind) {
    case NodeKind::kMessage: return "a message";
    case NodeKind::kList: return "a list";
    case NodeKind::kString: return "a string";
    case NodeKind::kNumber: return "a number";
    case NodeKind::kWord: return "a word";
  }
  return "?";
}

std::string Shown(const DocumentNode& node) {
  switch (node.kind) {
    case NodeKind::kMessage:
    case NodeKind::kList: return std::string(KindName(node.kind));
    case NodeKind::kString: return absl::StrCat("the string ", Quote(node.text));
    case NodeKind::kNumber:
    case NodeKind::kWord: break;
  }
  return Quote(node.text);
}

class Builder final {
 public:
  enum class Source : uint8_t { kText, kJson, kFlag };

  Builder(Source source, absl::string_view where, FieldOrigins& origins, Problems& problems)
      : source_(source), where_(where), origins_(origins), problems_(problems) {}

  void Fill(const DocumentNode& node, Message& message, const std::string& path) {
    const Descriptor& type = *message.GetDescriptor();
    std::set<const FieldDescriptor*> seen;
    for (const DocumentField& given : node.fields) {
      const FieldDescriptor* field = type.FindFieldByName(given.name);
      if (field == nullptr && source_ == Source::kJson) field = type.FindFieldByCamelcaseName(given.name);
      if (field == nullptr) {
        Report(given.line, Join(path, Printable(given.name)), UnknownField(type, given.name));
        continue;
      }
      const std::string field_path = Join(path, field->name());
      if (!seen.insert(field).second && !(field->is_repeated() && source_ != Source::kJson)) {
        Report(given.line, field_path, "given twice");
        continue;
      }
      SetField(*field, given.value, given.line, message, field_path);
    }
  }

  void SetField(const FieldDescriptor& field, const DocumentNode& node, int line, Message& message,
                const std::string& path) {
    // In protobuf's JSON null means "not given".
    if (source_ == Source::kJson && node.kind == NodeKind::kWord && node.text == "null") return;
    origins_.Set(path, {Where(line), source_ == Source::kFlag});
    if (!field.is_repeated()) return SetValue(field, node, message, path);
    const Reflection& reflection = *message.GetReflection();
    if (node.kind != NodeKind::kList) {
      if (source_ == Source::kJson) return Report(node.line, path, absl::StrCat("is ", Shown(node), ", not a list"));
      return AddItem(field, node, message, path);
    }
    if (source_ == Source::kFlag) reflection.ClearField(&message, &field);
    for (const DocumentNode& item : node.items) AddItem(field, item, message, path);
  }

 private:
  [[nodiscard]] std::string Where(int line) const {
    return source_ == Source::kFlag ? where_ : absl::StrCat(where_, ":", line);
  }
  void Report(int line, absl::string_view path, absl::string_view what) { problems_.Add(Where(line), path, what); }
  void WrongKind(const DocumentNode& node, const std::string& path, absl::string_view wanted) {
    Report(node.line, path, absl::StrCat("is ", Shown(node), ", not ", wanted));
  }

  void AddItem(const FieldDescriptor& field, const DocumentNode& node, Message& message, const std::string& path) {
    const std::string item_path = absl::StrCat(path, "[", message.GetReflection()->FieldSize(message, &field), "]");
    origins_.Set(item_path, {Where(node.line), source_ == Source::kFlag});
    SetValue(field, node, message, item_path);
  }

  void SetValue(const FieldDescriptor& field, const DocumentNode& node, Message& message, const std::string& path) {
    const Reflection& reflection = *message.GetReflection();
    const bool repeated = field.is_repeated();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        if (node.kind != NodeKind::kMessage) return WrongKind(node, path, "a message");
        Message* const inner =
            repeated ? reflection.AddMessage(&message, &field) : reflection.MutableMessage(&message, &field);
        return Fill(node, *inner, path);
      }
      case FieldDescriptor::CPPTYPE_STRING: {
        if (node.kind != NodeKind::kString) return WrongKind(node, path, "a string in quotes");
        if (repeated) return reflection.AddString(&message, &field, node.text);
        return reflection.SetString(&message, &field, node.text);
      }
      case FieldDescriptor::CPPTYPE_BOOL: {
        if (node.kind != NodeKind::kWord || (node.text != "true" && node.text != "false")) {
          return WrongKind(node, path, "true or false");
        }
        const bool value = node.text == "true";
        if (repeated) return reflection.AddBool(&message, &field, value);
        return reflection.SetBool(&message, &field, value);
      }
      case FieldDescriptor::CPPTYPE_ENUM: {
        const EnumValueDescriptor* const value = FindEnum(*field.enum_type(), node);
        if (value == nullptr) {
          return WrongKind(node, path, absl::StrCat("one of ", EnumNames(*field.enum_type())));
        }
        if (repeated) return reflection.AddEnum(&message, &field, value);
        return reflection.SetEnum(&message, &field, value);
      }
      case FieldDescriptor::CPPTYPE_UINT64: {
        const std::optional<uint64_t> value = Unsigned(node, path, std::numeric_limits<uint64_t>::max());
        if (!value) return;
        if (repeated) return reflection.AddUInt64(&message, &field, *value);
        return reflection.SetUInt64(&message, &field, *value);
      }
      case FieldDescriptor::CPPTYPE_UINT32: {
        const std::optional<uint64_t> value = Unsigned(node, path, std::numeric_limits<uint32_t>::max());
        if (!value) return;
        if (repeated) return reflection.AddUInt32(&message, &field, static_cast<uint32_t>(*value));
        return reflection.SetUInt32(&message, &field, static_cast<uint32_t>(*value));
      }
      default:
        // The schema has no such field: help_test.cc asserts it.
        return Report(node.line, path, "has a type that configurations do not use");
    }
  }

  [[nodiscard]] const EnumValueDescriptor* FindEnum(const EnumDescriptor& type, const DocumentNode& node) const {
    const NodeKind wanted = source_ == Source::kJson ? NodeKind::kString : NodeKind::kWord;
    if (node.kind != wanted) return nullptr;
    for (int i = 0; i < type.value_count(); ++i) {
      const std::string& name = type.value(i)->name();
      if (source_ == Source::kFlag ? absl::EqualsIgnoreCase(name, node.text) : name == node.text) return type.value(i);
    }
    return nullptr;
  }

  std::optional<uint64_t> Unsigned(const DocumentNode& node, const std::string& path, uint64_t max) {
    // Protobuf's JSON writes 64-bit numbers as strings.
    const bool number = node.kind == NodeKind::kNumber || (source_ == Source::kJson && node.kind == NodeKind::kString);
    absl::string_view digits = node.text;
    const bool hexadecimal = source_ != Source::kJson && (absl::ConsumePrefix(&digits, "0x") || absl::ConsumePrefix(&digits, "0X"));
    const auto is_digit = [hexadecimal](char c) { return hexadecimal ? absl::ascii_isxdigit(c) : absl::ascii_isdigit(c); };
    if (!number || digits.empty() || !std::all_of(digits.begin(), digits.end(), is_digit)) {
      WrongKind(node, path, "a whole number of 0 or more");
      return std::nullopt;
    }
    // 0512 is octal in text format, and 512 to everybody else.
    if (!hexadecimal && digits.size() > 1 && digits[0] == '0') {
      WrongKind(node, path, "a number without leading zeros");
      return std::nullopt;
    }
    uint64_t value = 0;
    const bool fits = hexadecimal ? absl::SimpleHexAtoi(digits, &value) : absl::SimpleAtoi(digits, &value);
    if (!fits || value > max) {
      Report(node.line, path, absl::StrCat("is too large (", Quote(node.text), ")"));
      return std::nullopt;
    }
    return value;
  }

  const Source source_;
  const std::string where_;
  FieldOrigins& origins_;
  Problems& problems_;
};

DocumentNode FlagNode(const FieldDescriptor& field, absl::string_view value) {
  DocumentNode node;
  node.text = std::string(value);
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_STRING: node.kind = NodeKind::kString; break;
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64: node.kind = NodeKind::kNumber; break;
    default: node.kind = NodeKind::kWord; break;
  }
  return node;
}

}  // namespace

std::string FieldOrigins::Where(absl::string_view path) const {
  std::string key(path);
  while (!key.empty()) {
    if (const auto it = origins_.find(key); it != origins_.end()) return it->second.where;
    const size_t cut = key.find_last_of(".[");
    key.resize(cut == std::string::npos ? 0 : cut);
  }
  return fallback_;
}

bool FieldOrigins::FromFlag(const std::string& path) const {
  const auto it = origins_.find(path);
  return it != origins_.end() && it->second.from_flag;
}

void BuildMessage(const DocumentNode& document, Dialect dialect, absl::string_view file, Message& message,
                  FieldOrigins& origins, Problems& problems) {
  Builder(dialect == Dialect::kJson ? Builder::Source::kJson : Builder::Source::kText, file, origins, problems)
      .Fill(document, message, "");
}

void ApplyOverride(const ConfigOverride& override, Message& message, FieldOrigins& origins, Problems& problems) {
  const std::string where = Printable(override.flag);
  Message* at = &message;
  const FieldDescriptor* field = nullptr;
  std::string path;
  const std::vector<std::string> names = absl::StrSplit(override.path, '.');
  for (const std::string& name : names) {
    if (field != nullptr) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE || field->is_repeated()) {
        return problems.Add(where, Printable(override.path), absl::StrCat(path, " has no fields"));
      }
      at = at->GetReflection()->MutableMessage(at, field);
    }
    const FieldDescriptor* const next = at->GetDescriptor()->FindFieldByName(name);
    if (next == nullptr) return problems.Add(where, Printable(override.path), UnknownField(*at->GetDescriptor(), name));
    field = next;
    path = Join(path, name);
  }

  std::string value;
  if (override.value) {
    value = *override.value;
  } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL && !field->is_repeated()) {
    value = "true";
  } else {
    return problems.Add(where, path, "needs a value");
  }
  if (!IsUtf8(value)) return problems.Add(where, path, absl::StrCat("the value ", Quote(value), " is not UTF-8"));

  Builder builder(Builder::Source::kFlag, where, origins, problems);
  if (field->is_repeated()) {
    DocumentNode list;
    list.kind = NodeKind::kList;
    if (field->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      // As in a file: one message in braces, or a list of them in brackets.
      const absl::string_view text = absl::StripAsciiWhitespace(value);
      Problems syntax;
      DocumentNode node = ParseTextDocument(absl::StrCat(field->name(), absl::StartsWith(text, "[") ? ": " : " ", text), "value", syntax);
      if (!syntax.empty()) return problems.Add(where, path, syntax.ToStatus().message());
      if (node.fields.size() != 1) return problems.Add(where, path, "is one message in braces, or a list of them in brackets");
      DocumentNode& given = node.fields[0].value;
      if (given.kind == NodeKind::kList) {
        list = std::move(given);
      } else {
        list.items.push_back(std::move(given));
      }
      return builder.SetField(*field, list, 1, *at, path);
    }
    for (const absl::string_view item : absl::StrSplit(value, ',', absl::SkipEmpty())) {
      list.items.push_back(FlagNode(*field, item));
    }
    return builder.SetField(*field, list, 1, *at, path);
  }
  if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
    return builder.SetField(*field, FlagNode(*field, value), 1, *at, path);
  }
  absl::string_view body = absl::StripAsciiWhitespace(value);
  if (absl::ConsumePrefix(&body, "{") && !absl::ConsumeSuffix(&body, "}")) {
    return problems.Add(where, path, "'}' is missing");
  }
  Problems syntax;
  const DocumentNode node = ParseTextDocument(body, "value", syntax);
  if (!syntax.empty()) return problems.Add(where, path, syntax.ToStatus().message());
  builder.SetField(*field, node, 1, *at, path);
}

}  // namespace vmm
