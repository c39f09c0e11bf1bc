#include "vmm/config/document.h"

#include <algorithm>
#include <optional>
#include <utility>

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace vmm {
namespace {

using google::protobuf::io::Tokenizer;

bool IsDigit(char c) { return c >= '0' && c <= '9'; }

// Remembers the first error: what follows it is usually its echo.
class FirstError final : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int /*column*/, const std::string& message) override {
    if (!message_) {
      line_ = line + 1;
      message_ = message;
    }
  }
  [[nodiscard]] bool any() const { return message_.has_value(); }
  [[nodiscard]] int line() const { return line_; }
  [[nodiscard]] const std::string& message() const { return *message_; }

 private:
  int line_ = 0;
  std::optional<std::string> message_;
};

// Keeps the dotted path of the field that is being read.
class PathScope final {
 public:
  PathScope(std::string& path, absl::string_view name) : path_(path), old_size_(path.size()) {
    absl::StrAppend(&path_, path_.empty() ? "" : ".", Printable(name.substr(0, 80)));
  }
  ~PathScope() { path_.resize(old_size_); }
  PathScope(const PathScope&) = delete;
  PathScope& operator=(const PathScope&) = delete;

 private:
  std::string& path_;
  const size_t old_size_;
};

class TextParser final {
 public:
  TextParser(absl::string_view text, absl::string_view file, Problems& problems)
      : stream_(text.data(), static_cast<int>(text.size())), tokenizer_(&stream_, &lexical_), file_(file),
        problems_(problems) {
    tokenizer_.set_comment_style(Tokenizer::SH_COMMENT_STYLE);
    tokenizer_.Next();
  }

  DocumentNode Parse() {
    DocumentNode root;
    while (!failed_ && !AtEnd()) ParseField(root, 1);
    if (!failed_) CheckLexical();
    if (!failed_) return root;
    return {};
  }

 private:
  [[nodiscard]] bool AtEnd() { return tokenizer_.current().type == Tokenizer::TYPE_END; }
  [[nodiscard]] bool At(absl::string_view symbol) { return tokenizer_.current().text == symbol; }
  [[nodiscard]] int Line() { return tokenizer_.current().line + 1; }
  bool Take(absl::string_view symbol) {
    if (tokenizer_.current().type != Tokenizer::TYPE_SYMBOL || !At(symbol)) return false;
    tokenizer_.Next();
    return true;
  }
  [[nodiscard]] std::string Seen() {
    return AtEnd() ? "the end of the file" : Quote(tokenizer_.current().text);
  }

  void CheckLexical() {
    if (lexical_.any() && !failed_) FailAt(lexical_.line(), lexical_.message());
  }
  void FailAt(int line, absl::string_view what) {
    if (std::exchange(failed_, true)) return;
    problems_.Add(absl::StrCat(file_, ":", line), path_, what);
  }
  void Fail(absl::string_view what) {
    // A token that could not be read is the cause of what the grammar says next.
    CheckLexical();
    FailAt(Line(), what);
  }

  void ParseField(DocumentNode& message, int depth) {
    if (tokenizer_.current().type != Tokenizer::TYPE_IDENTIFIER) {
      return Fail(absl::StrCat("expected a field name, found ", Seen()));
    }
    DocumentField field;
    field.name = tokenizer_.current().text;
    field.line = Line();
    const PathScope scope(path_, field.name);
    tokenizer_.Next();
    const bool colon = Take(":");
    if (!colon && !At("{") && !At("<")) {
      Fail(absl::StrCat("expected ':' or '{' after the field name, found ", Seen()));
    } else {
      field.value = ParseValue(depth);
    }
    if (failed_) return;
    if (!Take(";")) Take(",");
    message.fields.push_back(std::move(field));
  }

  DocumentNode ParseValue(int depth) {
    DocumentNode node;
    node.line = Line();
    if (depth > kMaxDepth) {
      Fail(absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
      return node;
    }
    if (At("{") || At("<")) {
      const absl::string_view close = At("{") ? "}" : ">";
      tokenizer_.Next();
      while (!failed_ && !Take(close)) {
        if (AtEnd()) {
          Fail(absl::StrCat("'", close, "' is missing: the message that starts in line ", node.line, " does not end"));
        } else {
          ParseField(node, depth + 1);
        }
      }
      return node;
    }
    if (Take("[")) {
      node.kind = NodeKind::kList;
      if (Take("]")) return node;
      do {
        if (At("[")) {
          Fail("a list cannot hold lists");
          return node;
        }
        node.items.push_back(ParseValue(depth + 1));
      } while (!failed_ && Take(","));
      if (!failed_ && !Take("]")) Fail(absl::StrCat("expected ',' or ']' in a list, found ", Seen()));
      return node;
    }
    const bool negative = Take("-");
    const Tokenizer::Token& token = tokenizer_.current();
    if (token.type == Tokenizer::TYPE_INTEGER || token.type == Tokenizer::TYPE_FLOAT) {
      node.kind = NodeKind::kNumber;
      node.text = absl::StrCat(negative ? "-" : "", token.text);
      tokenizer_.Next();
    } else if (token.type == Tokenizer::TYPE_IDENTIFIER && !negative) {
      node.kind = NodeKind::kWord;
      node.text = token.text;
      tokenizer_.Next();
    } else if (token.type == Tokenizer::TYPE_STRING && !negative) {
      node.kind = NodeKind::kString;
      while (tokenizer_.current().type == Tokenizer::TYPE_STRING) {
        CheckLexical();
        if (failed_) return node;
        Tokenizer::ParseStringAppend(tokenizer_.current().text, &node.text);
        tokenizer_.Next();
      }
      if (!IsUtf8(node.text)) FailAt(node.line, absl::StrCat("the string ", Quote(node.text), " is not UTF-8"));
    } else {
      Fail(absl::StrCat("expected a value, found ", Seen()));
    }
    return node;
  }

  google::protobuf::io::ArrayInputStream stream_;
  FirstError lexical_;
  Tokenizer tokenizer_;  // uses stream_ and lexical_ until it dies
  const absl::string_view file_;
  Problems& problems_;
  std::string path_;
  bool failed_ = false;
};

class JsonParser final {
 public:
  JsonParser(absl::string_view text, absl::string_view file, Problems& problems)
      : text_(text), file_(file), problems_(problems) {}

  DocumentNode Parse() {
    SkipSpace();
    DocumentNode root;
    if (Peek() != '{') {
      Fail(absl::StrCat("expected '{', found ", Seen()));
      return {};
    }
    root = ParseValue(0);
    SkipSpace();
    if (!failed_ && at_ < text_.size()) Fail(absl::StrCat("expected the end of the file, found ", Seen()));
    if (failed_) return {};
    return root;
  }

 private:
  [[nodiscard]] char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  [[nodiscard]] std::string Seen() const {
    return at_ >= text_.size() ? "the end of the file" : Quote(text_.substr(at_, 1));
  }
  void SkipSpace() {
    for (; at_ < text_.size(); ++at_) {
      const char c = text_[at_];
      if (c == '\n') ++line_;
      if (c != ' ' && c != '\t' && c != '\r' && c != '\n') return;
    }
  }
  bool Take(char c) {
    SkipSpace();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void Fail(absl::string_view what) {
    if (std::exchange(failed_, true)) return;
    problems_.Add(absl::StrCat(file_, ":", line_), path_, what);
  }

  DocumentNode ParseValue(int depth) {
    SkipSpace();
    DocumentNode node;
    node.line = line_;
    if (depth > kMaxDepth) {
      Fail(absl::StrCat("nested deeper than ", kMaxDepth, " levels"));
    } else if (Take('{')) {
      ParseObject(node, depth);
    } else if (Take('[')) {
      node.kind = NodeKind::kList;
      if (Take(']')) return node;
      do {
        node.items.push_back(ParseValue(depth + 1));
      } while (!failed_ && Take(','));
      if (!failed_ && !Take(']')) Fail(absl::StrCat("expected ',' or ']' in a list, found ", Seen()));
    } else if (Peek() == '"') {
      node.kind = NodeKind::kString;
      node.text = ParseString();
    } else if (Peek() == '-' || IsDigit(Peek())) {
      node.kind = NodeKind::kNumber;
      node.text = ParseNumber();
    } else {
      node.kind = NodeKind::kWord;
      for (const absl::string_view word : {"true", "false", "null"}) {
        if (absl::StartsWith(text_.substr(at_), word)) {
          node.text = std::string(word);
          at_ += word.size();
          return node;
        }
      }
      Fail(absl::StrCat("expected a value, found ", Seen()));
    }
    return node;
  }

  void ParseObject(DocumentNode& node, int depth) {
    if (Take('}')) return;
    do {
      SkipSpace();
      if (Peek() != '"') return Fail(absl::StrCat("expected a field name in double quotes, found ", Seen()));
      DocumentField field;
      field.line = line_;
      field.name = ParseString();
      if (failed_) return;
      const PathScope scope(path_, field.name);
      if (Take(':')) {
        field.value = ParseValue(depth + 1);
      } else {
        Fail(absl::StrCat("expected ':' after the field name, found ", Seen()));
      }
      if (failed_) return;
      node.fields.push_back(std::move(field));
    } while (Take(','));
    if (!Take('}')) {
      Fail(at_ < text_.size()
               ? absl::StrCat("expected ',' or '}' after a field, found ", Seen())
               : absl::StrCat("'}' is missing: the object that starts in line ", node.line, " does not end"));
    }
  }

  std::string ParseNumber() {
    const size_t start = at_;
    if (Peek() == '-') ++at_;
    const bool leading_zero = Peek() == '0';
    const size_t digits = at_;
    while (IsDigit(Peek())) ++at_;
    bool good = at_ > digits && !(leading_zero && at_ > digits + 1);
    if (Peek() == '.') {
      const size_t fraction = ++at_;
      while (IsDigit(Peek())) ++at_;
      good = good && at_ > fraction;
    }
    if (Peek() == 'e' || Peek() == 'E') {
      ++at_;
      if (Peek() == '+' || Peek() == '-') ++at_;
      const size_t exponent = at_;
      while (IsDigit(Peek())) ++at_;
      good = good && at_ > exponent;
    }
    if (!good) Fail(absl::StrCat(Quote(text_.substr(start, at_ - start)), " is not a JSON number"));
    return std::string(text_.substr(start, at_ - start));
  }

  std::optional<uint32_t> ParseHex4() {
    uint32_t value = 0;
    const absl::string_view digits = text_.substr(std::min(at_, text_.size()), 4);
    if (digits.size() != 4 ||
        !std::all_of(digits.begin(), digits.end(), [](char c) { return absl::ascii_isxdigit(c); }) ||
        !absl::SimpleHexAtoi(digits, &value)) {
      Fail("\\u needs four hexadecimal digits");
      return std::nullopt;
    }
    at_ += 4;
    return value;
  }

  void AppendEscape(std::string& out) {
    const char escape = Peek();
    ++at_;
    switch (escape) {
      case '"': case '\\': case '/': out.push_back(escape); return;
      case 'b': out.push_back('\b'); return;
      case 'f': out.push_back('\f'); return;
      case 'n': out.push_back('\n'); return;
      case 'r': out.push_back('\r'); return;
      case 't': out.push_back('\t'); return;
      case 'u': break;
      default: return Fail("unknown escape in a string");
    }
    const std::optional<uint32_t> first = ParseHex4();
    if (!first) return;
    uint32_t code = *first;
    if (code >= 0xd800 && code < 0xe000) {
      std::optional<uint32_t> second;
      if (code < 0xdc00 && absl::StartsWith(text_.substr(std::min(at_, text_.size())), "\\u")) {
        at_ += 2;
        second = ParseHex4();
      }
      if (!second || *second < 0xdc00 || *second >= 0xe000) return Fail("half of a surrogate pair in a string");
      code = 0x10000 + ((code - 0xd800) << 10) + (*second - 0xdc00);
    }
    if (code < 0x80) {
      out.push_back(static_cast<char>(code));
      return;
    }
    if (code >= 0x10000) {
      out.push_back(static_cast<char>(0xf0 | (code >> 18)));
      out.push_back(static_cast<char>(0x80 | ((code >> 12) & 0x3f)));
    } else if (code >= 0x800) {
      out.push_back(static_cast<char>(0xe0 | (code >> 12)));
    } else {
      out.push_back(static_cast<char>(0xc0 | (code >> 6)));
    }
    if (code >= 0x800) out.push_back(static_cast<char>(0x80 | ((code >> 6) & 0x3f)));
    out.push_back(static_cast<char>(0x80 | (code & 0x3f)));
  }

  std::string ParseString() {
    std::string out;
    ++at_;  // the quote
    while (!failed_) {
      if (at_ >= text_.size() || text_[at_] == '\n') {
        Fail("a string does not end in its line");
      } else if (text_[at_] == '"') {
        ++at_;
        break;
      } else if (text_[at_] == '\\') {
        ++at_;
        AppendEscape(out);
      } else if (static_cast<unsigned char>(text_[at_]) < 0x20) {
        Fail("a control character in a string must be escaped");
      } else {
        out.push_back(text_[at_++]);
      }
    }
    if (!failed_ && !IsUtf8(out)) Fail(absl::StrCat("the string ", Quote(out), " is not UTF-8"));
    return out;
  }

  const absl::string_view text_;
  const absl::string_view file_;
  Problems& problems_;
  size_t at_ = 0;
  int line_ = 1;
  std::string path_;
  bool failed_ = false;
};

// Both lexers would complain too, but in terms of control characters.
bool RefuseBinary(absl::string_view text, absl::string_view file, Problems& problems) {
  const size_t nul = text.find('\0');
  if (nul == absl::string_view::npos) return false;
  const auto line = 1 + std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(nul), '\n');
  problems.Add(absl::StrCat(file, ":", line), "", "not a text file: it holds a NUL byte");
  return true;
}

}  // namespace

DocumentNode ParseTextDocument(absl::string_view text, absl::string_view file, Problems& problems) {
  if (RefuseBinary(text, file, problems)) return {};
  return TextParser(text, file, problems).Parse();
}

DocumentNode ParseJsonDocument(absl::string_view text, absl::string_view file, Problems& problems) {
  if (RefuseBinary(text, file, problems)) return {};
  return JsonParser(text, file, problems).Parse();
}

bool IsUtf8(absl::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t length = lead < 0x80 ? 1 : lead >= 0xc2 && lead < 0xe0 ? 2 : (lead & 0xf0) == 0xe0 ? 3
                          : lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
    if (length == 0 || i + length > text.size()) return false;
    uint32_t code = length == 1 ? lead : lead & (0x7fU >> length);
    for (size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0) != 0x80) return false;
      code = (code << 6) | (next & 0x3f);
    }
    // Overlong forms, surrogates, beyond Unicode.
    if ((length == 3 && code < 0x800) || (length == 4 && (code < 0x10000 || code > 0x10ffff)) ||
        (code >= 0xd800 && code < 0xe000)) {
      return false;
    }
    i += length;
  }
  return true;
}

}  // namespace vmm
