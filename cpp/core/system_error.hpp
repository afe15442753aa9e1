// A failed system call, as a value.
#pragma once

namespace proclink {

struct SystemError {
  int code = 0;  // errno or GetLastError()
  const char* call = "";

  explicit operator bool() const { return code != 0; }
};

}  // namespace proclink
