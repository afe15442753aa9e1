// The bytes of any bytes-like object. `held`: a direction that the caller may hold.
#pragma once

#include <nanobind/nanobind.h>

#include <cstring>
#include <memory>
#include <optional>

#include "gil.hpp"

namespace proclink::python {

namespace nb = nanobind;

// The memory of an object, for as long as this lives.
class ObjectMemory {
 public:
  explicit ObjectMemory(DirectionLock* held = nullptr) : held_(held) { buffer_.obj = nullptr; }
  ~ObjectMemory() {
    if (buffer_.obj != nullptr) may_run_python([this] { PyBuffer_Release(&buffer_); }, held_);
  }
  ObjectMemory(const ObjectMemory&) = delete;
  ObjectMemory& operator=(const ObjectMemory&) = delete;

  // False with an exception set when `object` is not bytes-like, or its bytes are pointers.
  bool get(PyObject* object, int flags) {
    // What the items are is asked for pointers' sake alone: an array of dates cannot tell.
    if (get_buffer(object, flags | PyBUF_FORMAT)) return !refuse(has_pointers(buffer_.format));
    if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_BufferError))
      return false;
    PyErr_Clear();
    return get_buffer(object, flags) && !refuse(has_objects(object));
  }

  const Py_buffer& buffer() const { return buffer_; }

 private:
  bool get_buffer(PyObject* object, int flags) {
    const auto get = [&] { return PyObject_GetBuffer(object, &buffer_, flags); };
    if (may_run_python(get, held_) == 0) return true;
    buffer_.obj = nullptr;
    return false;
  }

  static bool refuse(bool pointers) {
    if (pointers) {
      PyErr_SetString(PyExc_TypeError,
                      "the array holds pointers (to Python objects, say), which mean nothing in "
                      "another process: send what they point to");
    }
    return pointers;
  }

  // The format's language is that of PEP 3118, in which names stand between colons.
  static bool has_pointers(const char* format) {
    bool in_name = false;
    for (const char* each = format == nullptr ? "" : format; *each != '\0'; ++each) {
      if (*each == ':') in_name = !in_name;
      if (!in_name && (*each == 'O' || *each == 'P' || *each == '&' || *each == 'X')) return true;
    }
    return false;
  }

  // Of an array that has no format.
  bool has_objects(PyObject* array) {
    const auto ask = [&] {
      const nb::object type = nb::steal(PyObject_GetAttrString(array, "dtype"));
      const nb::object answer =
          nb::steal(type.is_valid() ? PyObject_GetAttrString(type.ptr(), "hasobject") : nullptr);
      return answer.ptr() == Py_True;
    };
    const bool found = may_run_python(ask, held_);
    PyErr_Clear();
    return found;
  }

  DirectionLock* held_;
  Py_buffer buffer_;  // only its obj is set until it is needed: clearing it takes longer than a send
};

// To be read, in C order.
class Payload {
 public:
  explicit Payload(DirectionLock* held = nullptr) : memory_(held) {}
  ~Payload() { Py_XDECREF(copy_); }
  Payload(const Payload&) = delete;
  Payload& operator=(const Payload&) = delete;

  // False with an exception set when `object` cannot be sent.
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
    if (!memory_.get(object, PyBUF_INDIRECT)) return false;
    const Py_buffer& buffer = memory_.buffer();
    length_ = static_cast<std::size_t>(buffer.len);
    if (PyBuffer_IsContiguous(&buffer, 'C')) {
      data_ = length_ > 0 ? buffer.buf : "";
      return true;
    }
    // A strided view: gathered once, as bytes(view) would.
    copy_ = PyBytes_FromStringAndSize(nullptr, buffer.len);
    if (copy_ == nullptr ||
        PyBuffer_ToContiguous(PyBytes_AS_STRING(copy_), &buffer, buffer.len, 'C') != 0)
      return false;
    data_ = PyBytes_AS_STRING(copy_);
    return true;
  }

  ObjectMemory memory_;
  PyObject* copy_ = nullptr;
  const void* data_ = nullptr;
  std::size_t length_ = 0;
};

// The same for what is written in Python: the object itself where it is bytes.
inline nb::object as_bytes(nb::handle object) {
  if (PyBytes_CheckExact(object.ptr())) return nb::borrow(object);
  Payload payload;
  if (!payload.read(object.ptr())) throw nb::python_error();
  PyObject* const bytes =
      PyBytes_FromStringAndSize(static_cast<const char*>(payload.data()),
                                static_cast<Py_ssize_t>(payload.length()));
  if (bytes == nullptr) throw nb::python_error();
  return nb::steal(bytes);
}

inline Py_ssize_t count_bytes(nb::handle object) {
  ObjectMemory memory;
  if (!memory.get(object.ptr(), PyBUF_INDIRECT)) throw nb::python_error();
  return memory.buffer().len;
}

// To be written, in one piece.
class Room {
 public:
  // False with an exception set when `object` cannot be received into.
  bool open(PyObject* object) {
    if (memory_.get(object, PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS)) return true;
    if (!PyErr_ExceptionMatches(PyExc_ValueError) && !PyErr_ExceptionMatches(PyExc_BufferError))
      return false;
    nb::python_error error;
    nb::raise_from(error, PyExc_BufferError,
                   "recv_into() needs a writable buffer in one piece, in C order");
    return false;
  }

  void* data() const { return memory_.buffer().buf; }
  std::size_t length() const { return static_cast<std::size_t>(memory_.buffer().len); }

 private:
  ObjectMemory memory_;
};

// For what is written in Python: a context manager.
class RoomObject {
 public:
  static RoomObject* open(nb::handle object) {
    auto made = std::make_unique<RoomObject>();
    if (!made->room_->open(object.ptr())) throw nb::python_error();
    return made.release();
  }
  std::size_t length() const { return room_ ? room_->length() : 0; }
  void fill(nb::bytes message) const {
    if (message.size() > length()) throw nb::value_error("it does not fit");
    std::memcpy(room_->data(), message.c_str(), message.size());
  }
  void exit() { room_.reset(); }

 private:
  std::optional<Room> room_{std::in_place};
};

}  // namespace proclink::python
