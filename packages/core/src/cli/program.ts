// SPDX-License-Identifier: Apache-2.0
// The `flashinfer` command: one file a subcommand, listed here.
import { Command } from 'commander';
import { packageVersion } from '../packageRoot.ts';
import { buildAddonCommand } from './buildAddonCommand.ts';
import { clearCacheCommand } from './clearCacheCommand.ts';
import { collectEnvCommand } from './collectEnvCommand.ts';
import { clearCubinCommand, downloadCubinCommand, listCubinsCommand } from './cubinCommands.ts';
import { doctorCommand } from './doctorCommand.ts';
import { exportCompileCommandsCommand } from './exportCompileCommandsCommand.ts';
import { installJitCacheCommand } from './installJitCacheCommand.ts';
import { listModulesCommand } from './listModulesCommand.ts';
import { moduleStatusCommand } from './moduleStatusCommand.ts';
import { showConfigCommand } from './showConfigCommand.ts';

const commands = [
  showConfigCommand,
  listModulesCommand,
  clearCacheCommand,
  installJitCacheCommand,
  listCubinsCommand,
  downloadCubinCommand,
  clearCubinCommand,
  moduleStatusCommand,
  collectEnvCommand,
  doctorCommand,
  exportCompileCommandsCommand,
  buildAddonCommand,
];

/** A fresh program; errors of use print the help and exit with 1. */
export function createProgram(): Command {
  const program = new Command('flashinfer')
    .description('Looks into an installation of @flashinfer/core')
    .version(packageVersion())
    .showHelpAfterError();
  for (const create of commands) program.addCommand(create().copyInheritedSettings(program));
  return program;
}
