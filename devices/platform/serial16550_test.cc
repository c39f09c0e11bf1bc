#include "devices/platform/serial16550.h"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace vmm {
namespace {

using namespace uart;  // NOLINT: the data sheet's names

class CountingLine final : public InterruptLine {
 public:
  void Pulse() noexcept override { ++pulses; }
  int pulses = 0;
};

class LastLineStatus final : public LineStatusListener {
 public:
  void LineStatus(uint8_t new_lsr, bool new_pure, uint16_t new_credit) noexcept override {
    lsr = new_lsr;
    pure = new_pure;
    credit = new_credit;
  }
  uint8_t lsr = 0;
  bool pure = false;
  uint16_t credit = 0;
};

class Serial16550Test : public ::testing::Test {
 protected:
  uint8_t In(uint64_t offset) {
    std::byte value{0xff};
    serial.Read(offset, std::span(&value, 1));
    return std::to_integer<uint8_t>(value);
  }
  void Out(uint64_t offset, uint8_t value) {
    const std::byte byte{value};
    serial.Write(offset, std::span(&byte, 1));
  }
  void Give(const std::string& text) {
    serial.GiveInput(std::span(reinterpret_cast<const uint8_t*>(text.data()), text.size()));
  }
  std::string TakeOutput() {
    std::string text;
    while (!serial.Output().empty()) {
      const auto part = serial.Output();
      text.append(part.begin(), part.end());
      serial.ConsumeOutput(part.size());
    }
    return text;
  }
  // As a driver leaves it after opening the port.
  void Open(uint8_t ier) {
    Out(kFcr, 0x07);
    Out(kFcr, 0x01);
    Out(kLcr, 0x03);
    Out(kMcr, kMcrDtr | kMcrRts | kMcrOut2);
    Out(kIer, ier);
  }
  void FillTransmitter() {
    while ((In(kLsr) & kLsrThre) != 0) Out(kThr, 'x');
  }

  CountingLine line;
  LastLineStatus published;
  Serial16550 serial{line, &published};
};

TEST_F(Serial16550Test, ResetValuesAreTheDataSheets) {
  EXPECT_EQ(In(kIer), 0x00);
  EXPECT_EQ(In(kIir), 0x01);
  EXPECT_EQ(In(kLcr), 0x00);
  EXPECT_EQ(In(kMcr), 0x00);
  EXPECT_EQ(In(kLsr), 0x60);
  EXPECT_EQ(In(kMsr), kMsrCts | kMsrDsr | kMsrDcd);
  EXPECT_EQ(In(8), 0xff);
}

// drivers/tty/serial/8250/8250_port.c, autoconfig().
TEST_F(Serial16550Test, LinuxAutoconfigFindsA16550A) {
  Out(kIer, 0);
  EXPECT_EQ(In(kIer) & 0x0f, 0x00);
  Out(kIer, 0x0f);
  EXPECT_EQ(In(kIer) & 0x0f, 0x0f);
  Out(kIer, 0);
  // Loopback: RTS and OUT2 come back as CTS and DCD.
  Out(kMcr, kMcrLoop | kMcrOut2 | kMcrRts);
  EXPECT_EQ(In(kMsr) & 0xf0, 0x90);
  Out(kMcr, 0);
  // FIFO detection, and no 16650, 16750 or 16950 behind it.
  Out(kLcr, 0xbf);
  Out(kFcr, 0);
  Out(kLcr, 0);
  Out(kFcr, kFcrEnable);
  EXPECT_EQ(In(kIir) >> 6, 3);
  Out(kLcr, kLcrDlab);
  EXPECT_NE(In(2), 0) << "EFR of a 16650";
  Out(kLcr, 0xbf);
  EXPECT_NE(In(2), 0) << "EFR of a 16650v2";
  Out(kLcr, 0);
  Out(kFcr, kFcrEnable);
  EXPECT_EQ(In(kIir) >> 5, 6);
  Out(kLcr, kLcrDlab);
  Out(kFcr, kFcrEnable | 0x20);
  EXPECT_EQ(In(kIir) >> 5, 6) << "no 64-byte FIFO of a 16750";
  Out(kLcr, 0);
  Out(kIer, 0x40);
  EXPECT_EQ(In(kIer), 0x00) << "no UUE of an XScale";
}

// size_fifo(): loopback at full speed, count what comes back.
TEST_F(Serial16550Test, LinuxMeasuresSixteenBytesOfFifo) {
  Out(kFcr, kFcrEnable | kFcrClearRx | kFcrClearTx);
  Out(kMcr, kMcrLoop);
  for (int i = 0; i < 256; ++i) Out(kThr, static_cast<uint8_t>(i));
  int count = 0;
  while ((In(kLsr) & kLsrDr) != 0 && count < 256) {
    EXPECT_EQ(In(kRbr), count);
    ++count;
  }
  EXPECT_EQ(count, 16);
  EXPECT_EQ(TakeOutput(), "");
}

// serial8250_do_startup(): the interrupt must come again when THRI is enabled again (UART_BUG_THRE).
TEST_F(Serial16550Test, LinuxThreTestSeesTheInterruptAgain) {
  Open(0);
  Out(kIer, kEtbei);
  const uint8_t first = In(kIir);
  Out(kIer, 0);
  Out(kIer, kEtbei);
  const uint8_t second = In(kIir);
  Out(kIer, 0);
  EXPECT_EQ(first & 0x0f, kIirThre);
  EXPECT_EQ(second & 0x0f, kIirThre);
}

// UART_BUG_TXEN: with IER.THRI just enabled and TEMT set, IIR must not say "none".
TEST_F(Serial16550Test, LinuxTxenTestSeesAnInterrupt) {
  Open(0);
  Out(kIer, kEtbei);
  EXPECT_NE(In(kLsr) & kLsrTemt, 0);
  EXPECT_EQ(In(kIir) & kIirNone, 0);
}

TEST_F(Serial16550Test, InterruptDrivenTransmitNeverStalls) {
  Open(kErbfi);
  const std::string text(1000, 'a');
  size_t sent = 0;
  int handled = 0;
  Out(kIer, kErbfi | kEtbei);  // start_tx
  while (sent < text.size()) {
    ASSERT_GT(line.pulses, handled) << "no interrupt after byte " << sent;
    handled = line.pulses;
    // serial8250_interrupt: until IIR says none, or PASS_LIMIT; here one pass an interrupt is the harder case.
    ASSERT_EQ(In(kIir) & 0x0f, kIirThre);
    ASSERT_NE(In(kLsr) & kLsrThre, 0);
    for (int i = 0; i < 16 && sent < text.size(); ++i) Out(kThr, static_cast<uint8_t>(text[sent++]));
    if (TakeOutput().empty()) FAIL();
  }
  EXPECT_EQ(sent, text.size());
}

TEST_F(Serial16550Test, IirReadAcknowledgesThreOnlyWhenItSaysThre) {
  Open(kErbfi | kEtbei);
  Give("a");
  EXPECT_EQ(In(kIir) & 0x0f, kIirData);
  EXPECT_EQ(In(kRbr), 'a');
  EXPECT_EQ(In(kIir) & 0x0f, kIirThre);
  EXPECT_EQ(In(kIir) & 0x0f, kIirNone);
}

TEST_F(Serial16550Test, PrioritiesAreLineDataThreModem) {
  Out(kFcr, kFcrEnable);
  Out(kMcr, kMcrLoop);
  In(kMsr);
  Out(kMcr, kMcrLoop | kMcrRts);           // CTS changes
  for (int i = 0; i < 17; ++i) Out(kThr, 'x');  // overrun
  Out(kIer, 0x0f);
  EXPECT_EQ(In(kIir) & 0x0f, kIirLine);
  EXPECT_EQ(In(kLsr) & kLsrOe, kLsrOe);
  EXPECT_EQ(In(kLsr) & kLsrOe, 0);
  EXPECT_EQ(In(kIir) & 0x0f, kIirData);
  while ((In(kLsr) & kLsrDr) != 0) In(kRbr);
  EXPECT_EQ(In(kIir) & 0x0f, kIirThre);
  EXPECT_EQ(In(kIir) & 0x0f, kIirModem);
  EXPECT_EQ(In(kMsr), kMsrCts | kMsrDcts);
  EXPECT_EQ(In(kIir) & 0x0f, kIirNone);
}

TEST_F(Serial16550Test, TriggerLevelTellsDataFromTimeout) {
  Open(kErbfi);
  Out(kFcr, kFcrEnable | 0x80);  // 8
  Give("1234567");
  EXPECT_EQ(In(kIir), kIirTimeout | kIirFifos);
  Give("8");
  EXPECT_EQ(In(kIir), kIirData | kIirFifos);
  In(kRbr);
  EXPECT_EQ(In(kIir), kIirTimeout | kIirFifos);
}

TEST_F(Serial16550Test, WithoutFifoOneByteIsHeldAndIirHasNoFifoBits) {
  Out(kMcr, kMcrRts | kMcrOut2);
  Out(kIer, kErbfi);
  EXPECT_EQ(serial.InputRoom(), 1u);
  Give("ab");
  EXPECT_EQ(serial.InputRoom(), 0u);
  EXPECT_EQ(In(kIir), kIirData);
  EXPECT_EQ(In(kRbr), 'a');
  EXPECT_EQ(In(kLsr) & kLsrDr, 0);
  EXPECT_EQ(serial.InputRoom(), 1u);
}

TEST_F(Serial16550Test, InputWaitsForRtsAndEndOfLoopback) {
  EXPECT_EQ(serial.InputRoom(), 0u);
  Open(0);
  EXPECT_EQ(serial.InputRoom(), 16u);
  Out(kMcr, kMcrRts | kMcrLoop);
  EXPECT_EQ(serial.InputRoom(), 0u);
  Out(kMcr, kMcrDtr);
  Give("lost?");
  EXPECT_EQ(In(kLsr) & kLsrDr, 0);
}

TEST_F(Serial16550Test, InputKeepsItsOrderAroundTheFifosEnd) {
  Open(0);
  std::string got;
  for (int round = 0; round < 10; ++round) {
    Give("abcdefghijk");
    for (int i = 0; i < 11; ++i) got += static_cast<char>(In(kRbr));
  }
  std::string expected;
  for (int round = 0; round < 10; ++round) expected += "abcdefghijk";
  EXPECT_EQ(got, expected);
}

TEST_F(Serial16550Test, PulsesOnlyWhenTheGatedLevelRises) {
  Out(kFcr, kFcrEnable);
  Out(kMcr, kMcrRts);  // OUT2 off
  Out(kIer, kErbfi);
  Give("a");
  EXPECT_EQ(line.pulses, 0);
  Out(kMcr, kMcrRts | kMcrOut2);
  EXPECT_EQ(line.pulses, 1) << "opening the gate finds INTR up";
  Give("b");
  EXPECT_EQ(line.pulses, 1);
  In(kRbr);
  EXPECT_EQ(line.pulses, 1) << "one byte is left, the level stays up";
  In(kRbr);
  Give("c");
  EXPECT_EQ(line.pulses, 2);
}

TEST_F(Serial16550Test, SourceThatComesWhileAnotherIsServedIsStillInIir) {
  Open(kErbfi | kEtbei);
  EXPECT_EQ(line.pulses, 1);
  Give("a");  // the level is up already: no edge
  EXPECT_EQ(line.pulses, 1);
  EXPECT_EQ(In(kIir) & 0x0f, kIirData);
  In(kRbr);
  EXPECT_EQ(In(kIir) & 0x0f, kIirThre);
  Give("b");  // fell with the acknowledge, rises now
  EXPECT_EQ(line.pulses, 2);
}

TEST_F(Serial16550Test, BackPressureClearsThreAndNothingIsLost) {
  Open(kEtbei);
  In(kIir);
  FillTransmitter();
  EXPECT_EQ(In(kLsr) & (kLsrThre | kLsrTemt), 0);
  EXPECT_EQ(In(kIir) & 0x0f, kIirNone);
  const int pulses = line.pulses;
  serial.ConsumeOutput(1);
  EXPECT_NE(In(kLsr) & kLsrThre, 0);
  EXPECT_EQ(line.pulses, pulses + 1);
  // A driver writes a whole FIFO on one THRE: it fits.
  for (int i = 0; i < 16; ++i) Out(kThr, 'y');
  const std::string output = TakeOutput();
  EXPECT_EQ(output.size(), Serial16550::kTransmitBytes);
  EXPECT_EQ(output.substr(output.size() - 16), std::string(16, 'y'));
}

TEST_F(Serial16550Test, PublishedCreditIsKept) {
  Open(0);
  while (published.credit > 0) {
    const uint8_t lsr = published.lsr;
    const int credit = published.credit;
    for (int i = 0; i < std::min(credit, 100); ++i) Out(kThr, 'x');
    ASSERT_EQ(In(kLsr), lsr);
  }
  EXPECT_NE(In(kLsr) & kLsrThre, 0);
  Out(kThr, 'x');
  EXPECT_EQ(In(kLsr) & kLsrThre, 0);
}

TEST_F(Serial16550Test, LsrWithErrorsIsNotPublishedAsPure) {
  Out(kFcr, kFcrEnable);
  Out(kMcr, kMcrLoop);
  EXPECT_TRUE(published.pure);
  EXPECT_EQ(published.credit, 0);
  for (int i = 0; i < 17; ++i) Out(kThr, 'x');
  EXPECT_FALSE(published.pure);
  In(kLsr);
  EXPECT_TRUE(published.pure);
}

TEST_F(Serial16550Test, BreakInLoopbackShowsWhenItsCharacterIsOnTop) {
  Out(kFcr, kFcrEnable);
  Out(kMcr, kMcrLoop);
  Out(kThr, 'a');
  Out(kLcr, 0x03 | kLcrBreak);
  EXPECT_EQ(In(kLsr), 0x60 | kLsrDr | kLsrFifoError);
  EXPECT_EQ(In(kRbr), 'a');
  EXPECT_EQ(In(kLsr), 0x60 | kLsrDr | kLsrFifoError | kLsrBi | kLsrFe);
  EXPECT_EQ(In(kLsr), 0x60 | kLsrDr);
  EXPECT_EQ(In(kRbr), 0);
}

TEST_F(Serial16550Test, ModemDeltasFollowLoopbackAndRingCountsItsEnd) {
  Out(kMcr, kMcrLoop | kMcrOut1 | kMcrRts | kMcrDtr | kMcrOut2);
  EXPECT_EQ(In(kMsr), 0xf0) << "CTS, DSR and DCD were on before; a ring that begins does not count";
  Out(kMcr, kMcrLoop);
  EXPECT_EQ(In(kMsr), 0x0f);
  EXPECT_EQ(In(kMsr), 0x00);
}

TEST_F(Serial16550Test, DlabSwitchesToTheDivisorAndBack) {
  Out(kIer, kErbfi);
  Out(kLcr, kLcrDlab);
  Out(kDll, 0x34);
  Out(kDlm, 0x12);
  EXPECT_EQ(In(kDll), 0x34);
  EXPECT_EQ(In(kDlm), 0x12);
  Out(kLcr, 0x03);
  EXPECT_EQ(In(kIer), kErbfi);
  EXPECT_EQ(TakeOutput(), "");
}

TEST_F(Serial16550Test, ScratchHoldsAnything) {
  Out(kScr, 0xa5);
  EXPECT_EQ(In(kScr), 0xa5);
}

TEST_F(Serial16550Test, McrKeepsFiveBits) {
  Out(kMcr, 0xff);
  EXPECT_EQ(In(kMcr), 0x1f);
}

TEST_F(Serial16550Test, ClearingAndSwitchingTheFifoEmptiesTheReceiver) {
  Open(0);
  Give("abc");
  Out(kFcr, kFcrEnable | kFcrClearRx);
  EXPECT_EQ(In(kLsr) & kLsrDr, 0);
  Give("abc");
  Out(kFcr, 0);
  EXPECT_EQ(In(kLsr) & kLsrDr, 0);
  EXPECT_EQ(In(kIir), kIirNone);
}

TEST_F(Serial16550Test, WideAccessReachesNothing) {
  Open(0);
  std::array<std::byte, 2> wide{};
  serial.Read(kLsr, wide);
  EXPECT_EQ(wide[0], std::byte{0xff});
  EXPECT_EQ(wide[1], std::byte{0xff});
  serial.Write(kThr, wide);
  EXPECT_EQ(TakeOutput(), "");
}

}  // namespace
}  // namespace vmm
