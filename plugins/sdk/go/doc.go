// Package plugin is for writing Millstream plugins in Go: transforms of records, which run as WebAssembly in a sandbox.
//
// A plugin is a program whose init function says what becomes of a record:
//
//	package main
//
//	import "millstream.dev/plugin"
//
//	type Config struct {
//		MinAge int `json:"min_age"`
//	}
//
//	type User struct {
//		ID  string `json:"id"`
//		Age int    `json:"age"`
//	}
//
//	func init() {
//		about := plugin.About{Name: "adults", Version: "1.0.0"}
//		plugin.Register(about, func(config Config) (plugin.Transform, error) {
//			return plugin.Func(func(record plugin.Record, out *plugin.Out) error {
//				var user User
//				if err := record.JSON(&user); err != nil {
//					return err
//				}
//				if user.Age >= config.MinAge {
//					out.Emit().SetKey([]byte(user.ID))
//				}
//				return nil
//			}), nil
//		})
//	}
//
//	func main() {}
//
// What a record's function returns as an error fails that record, and no other: the pipeline file says what becomes of it. A panic costs
// the same, with its text, but the instance is to be thought of as broken.
package plugin
