#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// Committed, so that the command can be linked before dist/ is built.
import '../dist/cli.js';
