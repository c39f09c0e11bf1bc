#include "vmm/config/document.h"

#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace vmm {
namespace {

using ::testing::StartsWith;

std::string TextError(absl::string_view text) {
  Problems problems;
  const DocumentNode node = ParseTextDocument(text, "f", problems);
  EXPECT_TRUE(problems.empty() || node.fields.empty());
  return std::string(problems.ToStatus().message());
}

std::string JsonError(absl::string_view text) {
  Problems problems;
  const DocumentNode node = ParseJsonDocument(text, "f", problems);
  EXPECT_TRUE(problems.empty() || node.fields.empty());
  return std::string(problems.ToStatus().message());
}

std::string JsonString(const std::string& literal) {
  Problems problems;
  const DocumentNode node = ParseJsonDocument("{\"a\":" + literal + "}", "f", problems);
  EXPECT_TRUE(problems.empty()) << problems.ToStatus();
  return node.fields.empty() ? "?" : node.fields[0].value.text;
}

TEST(TextDocumentTest, RemembersNamesValuesAndLines) {
  Problems problems;
  const DocumentNode root = ParseTextDocument("# comment\nname: \"a\" 'b'\nmemory {\n  size_mib: -5;\n lock: true }\n"
                                              "l <x: [A, 0x10]>",
                                              "f", problems);
  ASSERT_TRUE(problems.empty()) << problems.ToStatus();
  ASSERT_EQ(root.fields.size(), 3u);
  EXPECT_EQ(root.fields[0].line, 2);
  EXPECT_EQ(root.fields[0].value.kind, NodeKind::kString);
  EXPECT_EQ(root.fields[0].value.text, "ab");
  const DocumentNode& memory = root.fields[1].value;
  EXPECT_EQ(memory.kind, NodeKind::kMessage);
  ASSERT_EQ(memory.fields.size(), 2u);
  EXPECT_EQ(memory.fields[0].value.text, "-5");
  EXPECT_EQ(memory.fields[0].value.kind, NodeKind::kNumber);
  EXPECT_EQ(memory.fields[1].line, 5);
  EXPECT_EQ(memory.fields[1].value.kind, NodeKind::kWord);
  const DocumentNode& list = root.fields[2].value.fields[0].value;
  EXPECT_EQ(list.kind, NodeKind::kList);
  ASSERT_EQ(list.items.size(), 2u);
  EXPECT_EQ(list.items[1].text, "0x10");
}

TEST(TextDocumentTest, SyntaxErrorsNameLineAndField) {
  EXPECT_EQ(TextError("a: 1\nb {\n  c 5\n}"), "f:3: b.c: expected ':' or '{' after the field name, found \"5\"");
  EXPECT_EQ(TextError("a {\n b: 1\n"), "f:3: a: '}' is missing: the message that starts in line 1 does not end");
  EXPECT_EQ(TextError("a: \"x\nb: 1"), "f:1: a: String literals cannot cross line boundaries.");
  EXPECT_EQ(TextError("a:"), "f:1: a: expected a value, found the end of the file");
  EXPECT_EQ(TextError("}"), "f:1: expected a field name, found \"}\"");
  EXPECT_EQ(TextError("a: [1 2]"), "f:1: a: expected ',' or ']' in a list, found \"2\"");
  EXPECT_EQ(TextError("a: [[1]]"), "f:1: a: a list cannot hold lists");
  EXPECT_EQ(TextError("a: -x"), "f:1: a: expected a value, found \"x\"");
  EXPECT_EQ(TextError("a: '\\xff'"), "f:1: a: the string \"\\xff\" is not UTF-8");
}

TEST(TextDocumentTest, RefusesBinary) {
  EXPECT_EQ(TextError(absl::string_view("\n\x7f" "ELF\0", 6)), "f:2: not a text file: it holds a NUL byte");
  EXPECT_THAT(TextError("a: 1 \x01"), StartsWith("f:1: "));
}

TEST(TextDocumentTest, BoundsNesting) {
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "a{";
  EXPECT_THAT(TextError(deep), testing::HasSubstr("nested deeper than 32 levels"));
}

TEST(JsonDocumentTest, RemembersNamesValuesAndLines) {
  Problems problems;
  const DocumentNode root =
      ParseJsonDocument("{\n \"a\": {\"b\": [1, -2.5e+3, true]},\n\n \"c\": \"x\", \"d\": null}\n", "f", problems);
  ASSERT_TRUE(problems.empty()) << problems.ToStatus();
  ASSERT_EQ(root.fields.size(), 3u);
  EXPECT_EQ(root.fields[0].line, 2);
  ASSERT_EQ(root.fields[0].value.fields[0].value.items.size(), 3u);
  EXPECT_EQ(root.fields[0].value.fields[0].value.items[1].text, "-2.5e+3");
  EXPECT_EQ(root.fields[1].line, 4);
  EXPECT_EQ(root.fields[2].value.text, "null");
}

TEST(JsonDocumentTest, DecodesEscapes) {
  EXPECT_EQ(JsonString(R"("\"\\\/\b\f\n\r\t")"), "\"\\/\b\f\n\r\t");
  EXPECT_EQ(JsonString(R"("\u0041\u00e9\u20ac\ud83d\ude00")"), "A\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80");
}

TEST(JsonDocumentTest, SyntaxErrorsNameLineAndField) {
  EXPECT_EQ(JsonError(""), "f:1: expected '{', found the end of the file");
  EXPECT_EQ(JsonError("[]"), "f:1: expected '{', found \"[\"");
  EXPECT_EQ(JsonError("{\"a\":\n{\"b\" 1}}"), "f:2: a.b: expected ':' after the field name, found \"1\"");
  EXPECT_EQ(JsonError("{\"a\": 1,}"), "f:1: expected a field name in double quotes, found \"}\"");
  EXPECT_EQ(JsonError("{\"a\": 1"), "f:1: '}' is missing: the object that starts in line 1 does not end");
  EXPECT_EQ(JsonError("{\"a\": 1 \"b\": 2}"), "f:1: expected ',' or '}' after a field, found \"\\\"\"");
  EXPECT_EQ(JsonError("{\"a\": 01}"), "f:1: a: \"01\" is not a JSON number");
  EXPECT_EQ(JsonError("{\"a\": tru}"), "f:1: a: expected a value, found \"t\"");
  EXPECT_EQ(JsonError("{} x"), "f:1: expected the end of the file, found \"x\"");
  EXPECT_EQ(JsonError("{\"a\": \"x\n\"}"), "f:1: a: a string does not end in its line");
  EXPECT_EQ(JsonError(R"({"a": "\q"})"), "f:1: a: unknown escape in a string");
  EXPECT_EQ(JsonError(R"({"a": "\u12"})"), "f:1: a: \\u needs four hexadecimal digits");
  EXPECT_EQ(JsonError(R"({"a": "\ud800"})"), "f:1: a: half of a surrogate pair in a string");
  EXPECT_EQ(JsonError("{\"a\": \"\xc0\x80\"}"), "f:1: a: the string \"\\xc0\\x80\" is not UTF-8");
}

TEST(JsonDocumentTest, BoundsNesting) {
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100000; ++i) deep += "[";
  EXPECT_THAT(JsonError(deep), testing::HasSubstr("nested deeper than 32 levels"));
}

TEST(IsUtf8Test, RefusesOverlongSurrogateAndTruncatedForms) {
  EXPECT_TRUE(IsUtf8("plain \xc3\xa9 \xf0\x9f\x98\x80"));
  EXPECT_FALSE(IsUtf8("\xc0\x80"));
  EXPECT_FALSE(IsUtf8("\xe0\x80\x80"));
  EXPECT_FALSE(IsUtf8("\xed\xa0\x80"));
  EXPECT_FALSE(IsUtf8("\xf4\x90\x80\x80"));
  EXPECT_FALSE(IsUtf8("\xe2\x82"));
  EXPECT_FALSE(IsUtf8("\x80"));
}

}  // namespace
}  // namespace vmm
