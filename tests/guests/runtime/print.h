// Lines on the first serial port.
//
// Shapes   a line is put together first and goes out in one piece, so that those of several processors do not mix.
// Threads  any, interrupts included.
#ifndef VMM_TESTS_GUESTS_RUNTIME_PRINT_H_
#define VMM_TESTS_GUESTS_RUNTIME_PRINT_H_

#include <cstddef>
#include <cstdint>

namespace guest {

// A text of limited length: what does not fit is cut.
class Line final {
 public:
  Line& operator<<(const char* text);
  Line& operator<<(char c);
  Line& operator<<(int value);
  Line& operator<<(unsigned value);
  Line& operator<<(long value);
  Line& operator<<(unsigned long value);
  Line& Hex(uint64_t value);
  [[nodiscard]] const char* text() const { return text_; }

 private:
  size_t used_ = 0;
  char text_[256] = {};
};

// With a newline behind it.
void Print(const Line& line);
// "# ..." : a remark that no test depends on.
void Note(const char* text);
void Note(const char* text, uint64_t value);

// Where there is no serial port: failures and remarks, as far as they fit, as the message of Hyper-V's crash registers, which ends the
// machine. Before an end that is no success.
void SayLastWords();

void SetUpSerialPort();

}  // namespace guest

#endif  // VMM_TESTS_GUESTS_RUNTIME_PRINT_H_
