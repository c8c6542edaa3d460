// Package mha knows the language in which MHA 0.58 (mha4mysql-manager) speaks to its hooks: what arguments it gives to the
// programs that app1.cnf names as master_ip_failover_script and master_ip_online_change_script, and what it makes of their
// exit codes. It is pure: no file, socket or clock. docs/mha.md says what is done with it.
//
// # Arguments
//
// MHA writes --name=value in an order that differs from call to call. People add flags of their own in app1.cnf and call
// the hook by hand, as "stop 10.77.0.11" for example. So [Parse] takes any order, --name=value, --name value and bare
// flags, ignores what it does not know and lists it by name, never by value. MHA escapes the values of some options for a
// shell and then quotes them as well; the extra backslashes are taken off.
//
// Passwords and options of ssh are dropped where they are read: nothing in this package holds them after Parse.
package mha
