#include "devices/platform/serial_escape.h"

#include <string>

#include <gtest/gtest.h>

namespace vmm {
namespace {

struct Outcome {
  std::string text;
  bool quit = false;
};
Outcome Type(SerialEscape& escape, const std::string& keys) {
  uint8_t out[64];
  const auto result = escape.Filter(std::span(reinterpret_cast<const uint8_t*>(keys.data()), keys.size()), out);
  return {std::string(out, out + result.bytes), result.quit};
}

TEST(SerialEscapeTest, PassesOrdinaryKeys) {
  SerialEscape escape;
  EXPECT_EQ(Type(escape, "axb").text, "axb");
}

TEST(SerialEscapeTest, CtrlAThenXQuitsAcrossReads) {
  SerialEscape escape;
  EXPECT_EQ(Type(escape, "ls\x01").text, "ls");
  const Outcome outcome = Type(escape, "xy");
  EXPECT_TRUE(outcome.quit);
  EXPECT_EQ(outcome.text, "y");
}

TEST(SerialEscapeTest, CtrlATwiceOrWithASendsOne) {
  SerialEscape escape;
  EXPECT_EQ(Type(escape, "\x01\x01").text, "\x01");
  EXPECT_EQ(Type(escape, std::string("\x01") + "a").text, "\x01");
}

TEST(SerialEscapeTest, CtrlABeforeAnotherKeySendsBothWithinTheRoom) {
  SerialEscape escape;
  EXPECT_EQ(Type(escape, "\x01").text, "");
  EXPECT_EQ(Type(escape, "z").text, "\x01z");
}

}  // namespace
}  // namespace vmm
