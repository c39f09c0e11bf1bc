#include "vmm/run/inherited_fds.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>

#include <gtest/gtest.h>

#include "base/log.h"

namespace vmm {
namespace {

TEST(InheritedFdsTest, ListsWhatIsOpenBesideTheStandardOnesAndTheLog) {
  const int one = ::open("/dev/null", O_RDONLY);
  const int log = ::open("/dev/null", O_WRONLY);
  ConfigureLog({.fd = log});
  const std::vector<int> fds = InheritedFds();
  ConfigureLog({});
  EXPECT_EQ(std::count(fds.begin(), fds.end(), one), 1);
  for (const int fd : {0, 1, 2, log}) EXPECT_EQ(std::count(fds.begin(), fds.end(), fd), 0) << fd;
  for (const int fd : fds) EXPECT_GE(::fcntl(fd, F_GETFD), 0) << fd;
  CloseInherited({one});
  EXPECT_LT(::fcntl(one, F_GETFD), 0);
  EXPECT_GE(::fcntl(log, F_GETFD), 0);
  ::close(log);
}

}  // namespace
}  // namespace vmm
