// SPDX-License-Identifier: Apache-2.0
// The addon calls Node-API in the program that loads it, whatever that file is called (node.exe, an Electron application, a
// single executable): "node.exe", the name it was linked to, becomes a handle of the process itself.
#ifdef __MINGW32__
#include <windows.h>

#include <delayimp.h>

#include <cstring>

static FARPROC WINAPI FindNode(unsigned event, DelayLoadInfo* info) {
  if (event != dliNotePreLoadLibrary || _stricmp(info->szDll, "node.exe") != 0) return nullptr;
  HMODULE node = GetModuleHandleA("node.dll");
  return reinterpret_cast<FARPROC>(node != nullptr ? node : GetModuleHandleA(nullptr));
}

// MinGW-w64 defines the hook, so that it can only be set: before Node.js calls the addon, which then calls Node-API.
static const bool hooked = (__pfnDliNotifyHook2 = FindNode, true);
#endif
