// The bytes of any bytes-like object, in C order. `held`: a direction that the caller may hold.
#pragma once

#include <nanobind/nanobind.h>

#include "gil.hpp"

namespace proclink::python {

class Payload {
 public:
  explicit Payload(DirectionLock* held = nullptr) : held_(held) { buffer_.obj = nullptr; }
  ~Payload() {
    if (buffer_.obj != nullptr) may_run_python([this] { PyBuffer_Release(&buffer_); }, held_);
    Py_XDECREF(copy_);
  }
  Payload(const Payload&) = delete;
  Payload& operator=(const Payload&) = delete;

  // False with TypeError or BufferError set when `object` is not bytes-like.
  bool read(PyObject* object) {
    if (PyBytes_CheckExact(object)) [[likely]] {
      data_ = PyBytes_AS_STRING(object);
      length_ = static_cast<std::size_t>(PyBytes_GET_SIZE(object));
      return true;
    }
    return read_buffer(object);
  }

  const void* data() const { return data_; }
  std::size_t length() const { return length_; }

 private:
  bool read_buffer(PyObject* object) {
    const auto get = [&] { return PyObject_GetBuffer(object, &buffer_, PyBUF_FULL_RO); };
    if (may_run_python(get, held_) != 0) {
      buffer_.obj = nullptr;
      return false;
    }
    length_ = static_cast<std::size_t>(buffer_.len);
    if (PyBuffer_IsContiguous(&buffer_, 'C')) {
      data_ = length_ > 0 ? buffer_.buf : "";
      return true;
    }
    // A strided view: gathered once, as bytes(view) would.
    copy_ = PyBytes_FromStringAndSize(nullptr, buffer_.len);
    if (copy_ == nullptr ||
        PyBuffer_ToContiguous(PyBytes_AS_STRING(copy_), &buffer_, buffer_.len, 'C') != 0)
      return false;
    data_ = PyBytes_AS_STRING(copy_);
    return true;
  }

  DirectionLock* held_;
  Py_buffer buffer_;  // only its obj is set until it is needed: clearing it takes longer than a send
  PyObject* copy_ = nullptr;
  const void* data_ = nullptr;
  std::size_t length_ = 0;
};

}  // namespace proclink::python
